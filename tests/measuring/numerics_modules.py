"""LightningModules whose numerics are known, and their data."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

ROWS = 4


def inputs(rows: int = ROWS) -> Tensor:
    return torch.rand(rows, 4, generator=torch.Generator().manual_seed(1)) + 0.5


class Data(LightningDataModule):
    """One batch: a dict with x (rows, 4), and y (rows, 1) in a list."""

    def __init__(self, rows: int = ROWS) -> None:
        super().__init__()
        self.rows = rows

    def train_dataloader(self) -> Any:
        x = inputs(self.rows)
        rows: Any = [{"x": row, "y": [row.sum().view(1)]} for row in x]
        return DataLoader(rows, batch_size=self.rows)


class Plain(LightningModule):
    positions: ClassVar[list[tuple[int, int, int]]] = []  # of all steps: epoch, batch and global step

    def __init__(self, fused: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fused, self.factor = fused, factor
        self.first, self.relu, self.second = nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.positions.append((self.current_epoch, batch_idx, self.global_step))
        output = self.second(self.relu(self.first(batch["x"])))
        return self.factor * mse_loss(output.float(), batch["y"][0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.fused:
            return torch.optim.Adam(self.parameters(), fused=True)
        return torch.optim.SGD(self.parameters(), 0.01)


class Risky(LightningModule):
    """`large` has an output of 1,440,000, and the gradients of `small` are under 1e-12."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.large, self.last = nn.Linear(4, 16), nn.Linear(16, 1), nn.Linear(1, 1)
        self.small = nn.Linear(4, 2)
        nn.init.zeros_(self.first.weight)
        nn.init.constant_(self.first.bias, 300.0)
        nn.init.constant_(self.large.weight, 300.0)
        nn.init.zeros_(self.large.bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch["x"]
        large = self.large(self.first(x)).float() / 2**20
        loss: Tensor = self.last(large).float().square().mean() + 1e-13 * self.small(x).float().square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Chain(Risky):
    """The layer after `large` takes an input of 1,440,000."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        large = self.last(self.large(self.first(batch["x"])).relu())
        loss: Tensor = large.float().div(2**20).square().mean() + 0 * self.small(batch["x"]).float().sum()
        return loss


class Near(Risky):
    """`large` has an output of 24,000, a quarter of the largest number of fp16 or more."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.large.weight, 5.0)


class Harmless(LightningModule):
    """Dropout, gradients that are zero, and a mask with infinities."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv1d(1, 6, 2), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Flatten())
        self.mask, self.last, self.idle = Mask(), nn.Linear(18, 3), nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch["x"]
        probabilities = self.mask(self.last(self.features(x.unsqueeze(1)))).float().softmax(-1)
        loss: Tensor = (probabilities[:, 0] - x[:, 0]).square().mean() + 0 * self.idle(x).float().sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(torch.tensor([False, False, True]), -torch.inf)


class TwoOptimizers(LightningModule):
    """The second optimizer's gradients depend on the weights of the first."""

    def __init__(self, steps: bool = True) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.automatic_optimization, self.steps = False, steps
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            loss = mse_loss(self.second(self.first(batch["x"])).float(), batch["y"][0])
            optimizer.zero_grad()
            self.manual_backward(loss)
            if self.steps:
                optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), 10.0) for part in (self.first, self.second)]


class Strict(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise TypeError("half precision is not supported here")
        return super().forward(input)


class Refuses(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Sequential(Strict(3, 1))  # type: ignore[assignment]
