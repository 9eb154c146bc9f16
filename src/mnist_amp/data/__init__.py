"""MNIST: the published archives, the batches in memory, the LightningDataModule."""

from mnist_amp.data.datamodule import MNISTDataModule
from mnist_amp.data.picture_module import PictureDataModule

__all__ = ["MNISTDataModule", "PictureDataModule"]
