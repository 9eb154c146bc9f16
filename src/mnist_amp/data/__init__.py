"""MNIST: its files, the loaders of batches from memory, the normalisation, and the LightningDataModule."""

from mnist_amp.data.datamodule import MNISTDataModule

__all__ = ["MNISTDataModule"]
