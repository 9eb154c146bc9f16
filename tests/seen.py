"""A callback for runs in several processes: it saves the indices of the images that each process trained on."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Seen(Callback):
    def __init__(self) -> None:
        self.indices: list[int] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.indices += batch.indices.tolist()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(f"seen_{trainer.global_rank}.txt").write_text("\n".join(map(str, self.indices)))
