"""LightningModules and LightningDataModules as their users write them. Nothing of this project is in them."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from tests.measuring import own_networks


class LitCNN(LightningModule):
    """A classifier with BatchNorm, Dropout, and metrics logged by step and by epoch."""

    def __init__(self, width: int = 8, lr: float = 0.003) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net, self.lr = own_networks.cnn(width), lr

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


class LitTransformer(LightningModule):
    """A language model with AdamW, and a schedule that advances every step. Batches are dictionaries."""

    def __init__(self, width: int = 32, lr: float = 0.003) -> None:
        super().__init__()
        self.model, self.lr = own_networks.LanguageModel(width), lr

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(self.model(batch["tokens"]).flatten(0, 1), batch["targets"].flatten())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"loss": self._loss(batch)}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("perplexity", self._loss(batch).exp())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=0.01)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, own_networks.warm_up), "interval": "step"},
        }


class LitAutoencoder(LightningModule):
    """Two networks with an optimizer each, by manual optimization."""

    def __init__(self, width: int = 32, lr: float = 0.001) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.decoder, self.lr = own_networks.encoder(width), own_networks.decoder(width), lr

    def forward(self, vectors: Tensor) -> Tensor:
        restored: Tensor = self.decoder(self.encoder(vectors))
        return restored

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        (vectors,) = batch
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:  # each with a loss of its own
            optimizer.zero_grad()
            loss = F.mse_loss(self(vectors), vectors)
            self.manual_backward(loss)
            optimizer.step()
        self.log("reconstruction", loss, on_epoch=True)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[0]))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(part.parameters(), self.lr) for part in (self.encoder, self.decoder)]


class LitSlow(LitCNN):
    """The classifier again; its data are slow."""


class _Data(LightningDataModule):
    """A LightningDataModule of a seeded data set."""

    def __init__(self, batch_size: int, size: int, num_workers: int) -> None:
        super().__init__()
        self.batch_size, self.size, self.num_workers = batch_size, size, num_workers

    def data(self, seed: int) -> Any:
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        return own_networks.loader(self.data(1), self.batch_size, self.num_workers, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return own_networks.loader(self.data(2), self.batch_size, 0, shuffle=False)


class Images(_Data):
    def __init__(self, batch_size: int = 32, size: int = 512, num_workers: int = 0) -> None:
        super().__init__(batch_size, size, num_workers)

    def data(self, seed: int) -> Any:
        return own_networks.Images(seed, self.size)


class SlowImages(Images):
    def __init__(self, batch_size: int = 32, size: int = 512, num_workers: int = 0, seconds: float = 0.002) -> None:
        super().__init__(batch_size, size, num_workers)
        self.seconds = seconds  # to get an image

    def data(self, seed: int) -> Any:
        return own_networks.Images(seed, self.size, seconds=self.seconds if seed == 1 else 0.0)


class Sentences(_Data):
    def __init__(self, batch_size: int = 32, size: int = 512, num_workers: int = 0) -> None:
        super().__init__(batch_size, size, num_workers)

    def data(self, seed: int) -> Any:
        return own_networks.Sentences(seed, self.size)


class Vectors(_Data):
    def __init__(self, batch_size: int = 32, size: int = 512, num_workers: int = 0) -> None:
        super().__init__(batch_size, size, num_workers)

    def data(self, seed: int) -> Any:
        return own_networks.vectors(seed, self.size)


class LitPlain(LightningModule):
    """A regression in the ways that other modules are not written.

    Args:
        kind: `one_cycle` has a schedule of the fit's length, `plateau` one that needs a metric, `raw` uses its
            optimizer without Lightning, `logger` writes to its logger.
    """

    def __init__(self, kind: str = "one_cycle") -> None:
        super().__init__()
        self.kind, self.layer = kind, torch.nn.Linear(64, 1)
        self.automatic_optimization = kind != "raw"

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = self.layer(batch[0]).square().mean()
        self.log("rate", 0.1)
        if self.kind == "logger":
            self.logger.experiment.add_scalar("loss", loss, batch_idx)  # type: ignore[union-attr]
        if self.kind == "raw":
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return None if self.kind == "raw" else loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("size", self.layer(batch[0]).abs().mean())

    def on_train_epoch_end(self) -> None:
        if self.kind == "plateau":
            self.log("again", self.trainer.callback_metrics["size"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        if self.kind == "one_cycle":
            steps = int(self.trainer.estimated_stepping_batches)
            schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        if self.kind == "plateau":
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "size"}}
        return optimizer
