"""The clipping of gradients in mixed precision, of fused optimizers as well."""

from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.optim import Optimizer

from mnist_amp.torch_internals import unscales_by_itself


def clip_gradients(
    plugin: MixedPrecision, optimizer: Optimizer, clip_val: float, algorithm: str | None
) -> Tensor | None:
    """Clip the gradients of an optimizer before its step. The host does not wait for the device.

    Lightning refuses to clip the gradients of a fused optimizer in mixed precision, because such an optimizer divides
    fp16 gradients by the loss scale within its step, after the clipping. Here the scaler divides them first; it then
    gives the optimizer no scale, so that they are divided once. In bf16-mixed nothing is scaled. As with Lightning, if
    gradients are infinite or NaN, the scaler skips the step.

    Args:
        plugin: the Trainer's, with its scaler if it has one.
        optimizer: its gradients are clipped in place.
        clip_val: the largest norm of all gradients together, or the largest magnitude of a value.
        algorithm: `norm` or `value`; None for `norm`.

    Returns:
        The norm () of all gradients before the clipping, unscaled. None if it was not computed, because neither the
        clipping of values nor `LossScaleMonitor` needs it.
    """
    if plugin.scaler is not None and unscales_by_itself(optimizer):
        plugin.scaler.unscale_(optimizer)
    parameters = list(plugin.main_params(optimizer))
    if not is_by_value(algorithm):
        return clip_grad_norm_(parameters, clip_val)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = None if plugin.scaler is None else get_total_norm(gradients)
    clip_grad_value_(parameters, clip_val)
    return norm


def is_by_value(algorithm: str | None) -> bool:
    """Whether each value is clipped, and not the norm; Lightning also has an Enum for the name."""
    return getattr(algorithm, "value", algorithm) == "value"
