"""The metric that a trained module keeps in each way of inference."""

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mnist_amp.errors import RunError
from mnist_amp.measuring.inference_inputs import first_tensor, labels_of
from mnist_amp.measuring.inference_ways import TorchWay
from mnist_amp.measuring.measured_fit import BARE


class Validation:
    """Validates the module of a Trainer whose fit has ended, in any way of inference.

        accuracy = Validation(trainer, limit_batches=1.0).run(way)["val_accuracy"]

    Each validation has a Trainer of its own, because a Trainer has one precision.

    Args:
        trainer: has run the fit.
        limit_batches: share or number of the validation batches.
    """

    def __init__(self, trainer: Trainer, limit_batches: int | float) -> None:
        self.trainer, self.limit_batches = trainer, limit_batches

    def run(self, way: TorchWay, *callbacks: Callback) -> dict[str, float]:
        """Return the metrics that the module logs in a validation."""
        module, data = self.trainer.lightning_module, getattr(self.trainer, "datamodule", None)
        way.prepare()
        device = self.trainer.strategy.root_device
        trainer = Trainer(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=way.precision,
            callbacks=list(callbacks),
            limit_val_batches=self.limit_batches,
            inference_mode=self.trainer.validate_loop.inference_mode,
            enable_model_summary=False,
            **BARE,
        )
        try:
            loaders = None if data else self.trainer.val_dataloaders
            trainer.validate(module, dataloaders=loaders, datamodule=data, verbose=False)
        finally:
            module.trainer = self.trainer
            if data:
                data.trainer = self.trainer
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


class TimeLimit(Callback):
    """Ends a validation that takes too long.

    Args:
        seconds: the limit.
        clock: returns seconds.

    Raises:
        RunError: from the validation.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock = seconds, clock
        self.begun = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = self.clock()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.clock() - self.begun > self.seconds:
            raise RunError(f"a validation takes more than {self.seconds:.0f} s")


class Accuracies(Callback):
    """Counts, during a validation, how many inputs each classifier assigns to the right class.

    Args:
        classifiers: functions from inputs (N, ...) to logits (N, classes), by name.
    """

    def __init__(self, classifiers: dict[str, Callable[[Tensor], Tensor]]) -> None:
        self.classifiers = classifiers
        self.right = dict.fromkeys(classifiers, 0)
        self.total = 0

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        inputs, labels = first_tensor(batch), labels_of(batch)
        if inputs is None or labels is None:
            return
        self.total += len(labels)
        for name, classify in self.classifiers.items():
            self.right[name] += int((classify(inputs).argmax(dim=1) == labels).sum())

    def shares(self) -> dict[str, float]:
        """Return the accuracy (0 to 1) by name; empty if there was no input with a label."""
        return {name: right / self.total for name, right in self.right.items()} if self.total else {}
