"""Networks that the command trains by name."""

from mnist_amp.networks.simple_nn import SimpleNN

__all__ = ["SimpleNN"]
