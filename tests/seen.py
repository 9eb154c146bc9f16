"""Callbacks that write what they see in a run: the images of each process, and settings of torch."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Seen(Callback):
    """Writes the indices of the images that a process trained on to a file, `seen_` and its rank."""

    def __init__(self) -> None:
        self.indices: list[int] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.indices += batch.indices.tolist()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(f"seen_{trainer.global_rank}.txt").write_text("\n".join(map(str, self.indices)))


class MatmulPrecision(Callback):
    """Writes the precision of matrix products to the file `matmul`, in both of torch's interfaces."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        new = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")  # from torch 2.9 on
        Path("matmul").write_text(f"{torch.get_float32_matmul_precision()}, {new}")
