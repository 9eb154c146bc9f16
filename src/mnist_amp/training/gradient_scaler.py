"""The gradient scaler of fp16: its settings, and the steps that it skips."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from mnist_amp.number_types import FloatAbove1, LossScale, OpenUnitInterval, PositiveInt


@dataclass(frozen=True)
class ScalerSettings:
    """Settings of the GradScaler; what is null is torch's default, or that of a plugin's own scaler.

    Args:
        init_scale: loss scale at first; 65536 by default
        growth_factor: what the scale is multiplied by after growth_interval good steps in a row; 2 by default
        backoff_factor: what it is multiplied by after a step whose gradients overflowed; 0.5 by default
        growth_interval: 2000 by default
    """

    init_scale: LossScale | None = None
    growth_factor: FloatAbove1 | None = None
    backoff_factor: OpenUnitInterval | None = None
    growth_interval: PositiveInt | None = None

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class CountingGradScaler(torch.amp.GradScaler):
    """torch's GradScaler, which counts the steps that it skips. It counts on the device, so nothing waits for it.

    Attributes:
        newest: () float, 1 where the newest step was skipped; None before the first step.
    """

    def __init__(self, device: str, **settings: Any) -> None:
        super().__init__(device, **settings)
        self.newest: Tensor | None = None
        self._counted: Tensor | None = None
        self._before = 0  # in the runs that this one goes on from

    def update(self, new_scale: float | Tensor | None = None) -> None:
        for state in self._per_optimizer_states.values():
            for found in state["found_inf_per_device"].values():
                self._count(found)
        super().update(new_scale)

    def skipped(self) -> int:
        """Return how many steps were skipped so far; this waits for the device."""
        return self._before + (0 if self._counted is None else int(self._counted.item()))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "skipped": self.skipped()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._counted, self._before = None, state_dict.get("skipped", 0)

    def _count(self, found: Tensor) -> None:
        if self._counted is None:
            self._counted = torch.zeros_like(found)
        self._counted += found
        self.newest = found


def scaler_of(trainer: Trainer) -> CountingGradScaler | None:
    """Return the Trainer's scaler; None where its precision needs none."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if isinstance(scaler, CountingGradScaler) else None


def install(trainer: Trainer, settings: ScalerSettings) -> None:
    """Give a Trainer that scales gradients a scaler that counts, with these settings before those of its own one."""
    plugin = trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
        return
    own = plugin.scaler.state_dict()
    if own:  # it is enabled
        kept = {key: own[key] for key in ("growth_factor", "backoff_factor", "growth_interval")}
        plugin.scaler = CountingGradScaler(plugin.device, **({"init_scale": own["scale"]} | kept | settings.given()))


def newest_step_was_skipped(trainer: Trainer) -> bool:
    """Whether it was, where that can be told without waiting for the device; else False.

    It can be told on a CPU, and on a GPU with an optimizer that is not fused: torch then asks the device anyway.
    """
    scaler = scaler_of(trainer)
    if scaler is None or scaler.newest is None:
        return False
    fused = getattr(trainer.optimizers[0], "_step_supports_amp_scaling", False)
    return not (fused and scaler.newest.is_cuda) and bool(scaler.newest)


def override_state(state: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put settings that are given anew in the place of those in a scaler's saved state."""
    for name, value in given.items():
        state["scale" if name == "init_scale" else name] = value
    if given and "_growth_tracker" in state:
        # torch lets the scale grow where this equals the interval, and it may be past a new one
        state["_growth_tracker"] = 0
