"""Data sets of images by class, kept in memory: their files, the loaders of batches, and the LightningDataModule."""

from mnist_amp.data.datamodule import ClassificationDataModule

__all__ = ["ClassificationDataModule"]
