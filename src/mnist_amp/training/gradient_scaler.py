"""The gradient scaler of fp16: its settings, and a count of the optimizer steps that it skips."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from mnist_amp.number_types import FloatAbove1, LossScale, OpenUnitInterval, PositiveInt
from mnist_amp.torch_internals import found_infs


@dataclass(frozen=True)
class ScalerSettings:
    """Settings of the GradScaler; null means torch's default, or the setting of a plugin's own scaler.

        trainer = Trainer(precision="16-mixed")
        install(trainer, ScalerSettings(init_scale=1024, growth_interval=500))

    Args:
        init_scale: first loss scale; 65536 by default
        growth_factor: factor of the scale after growth_interval good steps in a row; 2 by default
        backoff_factor: factor of the scale after a step whose gradients overflowed; 0.5 by default
        growth_interval: good steps in a row after which the scale grows; 2000 by default
    """

    init_scale: LossScale | None = None
    growth_factor: FloatAbove1 | None = None
    backoff_factor: OpenUnitInterval | None = None
    growth_interval: PositiveInt | None = None

    def given(self) -> dict[str, Any]:
        """Return the settings that are not null, by name.

        >>> ScalerSettings(init_scale=1024.0).given()
        {'init_scale': 1024.0}
        """
        return {name: value for name, value in asdict(self).items() if value is not None}


class CountingGradScaler(torch.amp.GradScaler):
    """A GradScaler that counts the steps that it skips. It counts on the device, so the host does not wait for it.

        scaler = CountingGradScaler("cuda")
        for images, labels in batches:
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16):
                loss = F.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        print(scaler.skipped())

    Attributes:
        newest_skipped: () float, 1 if the newest step was skipped, else 0; None before the first step.
    """

    def __init__(self, device: str, **settings: Any) -> None:
        super().__init__(device, **settings)
        self.newest_skipped: Tensor | None = None
        self._counted: Tensor | None = None
        self._before = 0  # steps that were skipped before a resume

    def update(self, new_scale: float | Tensor | None = None) -> None:
        for found_inf in found_infs(self):
            if self._counted is None:
                self._counted = torch.zeros_like(found_inf)
            self._counted += found_inf
            self.newest_skipped = found_inf
        super().update(new_scale)

    def skipped(self) -> int:
        """Return how many steps were skipped so far; the host waits for the device."""
        return self._before + (0 if self._counted is None else int(self._counted.item()))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "skipped": self.skipped()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._counted, self._before = None, state_dict.get("skipped", 0)


def scaler_of(trainer: Trainer) -> CountingGradScaler | None:
    """Return the scaler of a Trainer; None if its precision needs none."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if isinstance(scaler, CountingGradScaler) else None


def install(trainer: Trainer, settings: ScalerSettings) -> None:
    """Replace the scaler of a Trainer by a CountingGradScaler.

    Args:
        trainer: if it does not scale gradients, it is left as it is.
        settings: they override the settings of the Trainer's own scaler.
    """
    plugin = trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
        return
    own = plugin.scaler.state_dict()
    if own:  # the state of a disabled scaler is empty
        kept = {key: own[key] for key in ("growth_factor", "backoff_factor", "growth_interval")}
        plugin.scaler = CountingGradScaler(plugin.device, **({"init_scale": own["scale"]} | kept | settings.given()))


def newest_step_was_skipped(trainer: Trainer) -> bool:
    """Whether the newest step was skipped; False if the host would have to wait for the device to know.

    The host knows it on a CPU, and on a GPU if the optimizer is not fused: then torch asks the device in each step.
    """
    scaler = scaler_of(trainer)
    if scaler is None or scaler.newest_skipped is None:
        return False
    is_fused = bool(trainer.optimizers[0].defaults.get("fused"))
    return not (is_fused and scaler.newest_skipped.is_cuda) and bool(scaler.newest_skipped)


def override_state(state: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Replace settings in the saved state of a scaler, in place.

    Args:
        state: of the scaler in a checkpoint.
        given: settings by name, as `ScalerSettings.given` returns them.
    """
    for name, value in given.items():
        state["scale" if name == "init_scale" else name] = value
    if given and "_growth_tracker" in state:
        # the scale grows when this count is equal to the interval, and it may be above a new interval already
        state["_growth_tracker"] = 0
