"""The smallest LightningModule and LightningDataModule that the callbacks of `test` and `predict` can report on."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mnist_amp.training.metrics import Scores

LABELS = torch.tensor([3, 1, 4, 1])
GUESSES = torch.tensor([3, 1, 9, 7])
STRENGTH = torch.tensor([5.0, 5.0, 2.0, 4.0])  # of the logit of the guess; the others are 0


class Images(LightningDataModule):
    """Four images in batches of three, in the order of the set; each pixel is the index of its image."""

    images = torch.arange(4, dtype=torch.uint8).reshape(-1, 1, 1).expand(4, 28, 28)

    classes = tuple("0123456789")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(torch.arange(4), LABELS), batch_size=3)

    val_dataloader = predict_dataloader = test_dataloader


class Model(LightningModule):
    """Has fixed guesses: the 4 is a 9, the second 1 is a 7."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = Scores()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        indices, labels = batch
        logits = torch.zeros(len(indices), 10)
        logits[range(len(indices)), GUESSES[indices]] = STRENGTH[indices]
        self.scores.update(indices, labels, logits)

    validation_step = predict_step = test_step
