"""All that measuring uses of this project's module and data, beyond what every LightningModule has.

A module without these additions is measured as well.
"""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mnist_amp.training.compilation import Compilation, CompileUse
from mnist_amp.training.execution import Execution, GraphUse
from mnist_amp.training.metrics import EpochMeans


def captures_steps(module: LightningModule) -> bool:
    """Whether the steps of this fit are captured as CUDA graphs."""
    execution = _execution(module)
    return execution is not None and execution.limit > 1 and execution.reason is None


def capture_outcome(module: LightningModule) -> GraphUse | None:
    """Return how many steps were replayed as CUDA graphs, of how many, and why not more; None if none could be."""
    execution = _execution(module)
    return None if execution is None else execution.outcome()


def compile_outcome(module: LightningModule) -> CompileUse | None:
    """Return what was compiled in a fit, and how long that took; None if the fit does not compile."""
    compilation = getattr(module, "compilation", None)
    return compilation.use() if isinstance(compilation, Compilation) else None


def _execution(module: LightningModule) -> Execution | None:
    """Return what takes several optimizer steps per execution; None if the module has no such thing."""
    execution = getattr(module, "execution", None)
    return execution if isinstance(execution, Execution) else None


def epoch_losses(module: LightningModule) -> list[float] | None:
    """Return the loss of each optimizer step of the epoch so far; None if the module does not keep it."""
    means = getattr(module, "train_means", None)
    return means.losses().tolist() if isinstance(means, EpochMeans) else None


def dataset_bytes(trainer: Trainer) -> int:
    """Return the bytes of the data set that stay on the device during a fit."""
    images = getattr(getattr(trainer, "datamodule", None), "images", None)
    if not isinstance(images, Tensor) or images.device.type != trainer.strategy.root_device.type:
        return 0
    return images.nbytes
