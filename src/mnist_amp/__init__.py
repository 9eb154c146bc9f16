"""Mixed-precision training of MNIST with PyTorch Lightning."""

__version__ = "0.1.0"
