"""The LightningModule of a classifier: its network, its loss, its steps, its metrics. Begin here.

The optimizer and its schedule are created in `mnist_amp.training.optimizers`. The base class, in
`mnist_amp.training.resumable_module`, makes a fit resumable to the bit, and fast.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_amp.data.loader import Batch
from mnist_amp.networks.factory import NETWORK, Init, make_network, with_path
from mnist_amp.number_types import PositiveInt
from mnist_amp.training.execution import AUTO
from mnist_amp.training.metrics import Scores, epoch_means, loss_and_accuracy
from mnist_amp.training.resumable_module import ResumableModule


class LitClassifier(ResumableModule):
    """A network of images, trained by cross-entropy. The Trainer's `precision` sets autocast and scaling.

        from lightning.pytorch import Trainer
        from mnist_amp.data import ClassificationDataModule
        from mnist_amp.module import LitClassifier

        trainer = Trainer(max_epochs=5, precision="16-mixed")
        trainer.fit(LitClassifier(), ClassificationDataModule())

    Args:
        network: class_path and init_args of the network; by default SimpleNN, see `mnist_amp.networks`
        num_classes: number of classes of the data
        image_shape: channels, height and width of the images
        optimizer: class_path and init_args of the optimizer; by default Adam at 0.001
        lr_scheduler: class_path and init_args of the learning-rate schedule; by default none
        lr_scheduler_interval: whether the schedule advances every epoch or every optimizer step
        steps_per_execution: optimizer steps in one iteration of the training loop; with more than 1 the loop costs less
            per step, and on a CUDA device the steps are captured as a CUDA graph. By default as many as change nothing
            and take a tenth of a second; on a CUDA device 1
        compile: whether torch.compile turns the training step into machine code, which takes time before it saves time

    Raises:
        RequestError: the network can't be made, or does not fit the images and classes; or steps_per_execution is
            less than 1.
    """

    step_is_loss_of = True  # so `compile` may take in the whole step

    def __init__(
        self,
        network: Init | None = None,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        steps_per_execution: PositiveInt | Literal["auto"] = AUTO,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, lr_scheduler_interval, steps_per_execution, compile)
        network = with_path(network or NETWORK)
        self.save_hyperparameters()
        self.model = make_network(network, num_classes, image_shape)
        self.scores, self.num_classes = Scores(), num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of normalised images (N, C, H, W)."""
        logits: Tensor = self.model(images.to(self.dtype))  # the weights are not float32 in 16-true and bf16-true
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits, loss = self.loss_of(batch) if self.compilation is None else self.compilation.loss_of(batch)
        self.record_step(loss, logits, batch.labels)
        return loss

    def loss_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits (N, classes) and the mean cross-entropy () of a batch."""
        logits = self(batch.images)
        return logits, F.cross_entropy(logits, batch.labels)

    def on_train_epoch_end(self) -> None:
        rows = torch.as_tensor(self.all_gather(self.train_means.rows()))
        self.log_dict({f"train_{name}": value for name, value in epoch_means(rows)._asdict().items()})

    def on_validation_epoch_start(self) -> None:
        self.scores.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_start(self) -> None:
        self.scores.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def on_predict_epoch_start(self) -> None:
        self.scores.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities (N, classes) of a batch; `scores` keeps the logits of all batches."""
        return self._score(batch).float().softmax(dim=1)

    def _score(self, batch: Batch) -> Tensor:
        # a process may have no images of the last batch, which not every network takes
        logits: Tensor = self(batch.images) if len(batch.labels) else batch.images.new_empty(0, self.num_classes)
        self.scores.update(batch.indices, batch.labels, logits)
        return logits

    def _log_scores(self, stage: str) -> None:
        metrics = loss_and_accuracy(self.scores.scored())._asdict()
        # without sync_dist, because each process has the scores of all processes
        self.log_dict({f"{stage}_{name}": value for name, value in metrics.items()}, prog_bar=True, sync_dist=False)
