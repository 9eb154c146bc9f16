"""MNIST: the published archives, the batches in memory, the LightningDataModule."""

from mnist_amp.data.datamodule import MNISTDataModule

__all__ = ["MNISTDataModule"]
