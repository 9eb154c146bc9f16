"""The effect of a precision on the gradients and activations of a training step, of any LightningModule.

A fit in float32 trains for some steps, because batch normalization amplifies rounding errors at initialisation. Then
each precision takes one step from these weights, on the same batch, with the same seed. That is a fit of its own,
because a module that has a Trainer can't be copied.

    numerics = measure_numerics(config, {name: PRECISIONS[name] for name in ("bf16-mixed", "fp16-cpu")})
    for risk in numerics.risks():
        print(risk.kind, risk.layer, risk.precision)
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mnist_amp.cli.arguments import find
from mnist_amp.cli.error_messages import describe_error
from mnist_amp.errors import RunError
from mnist_amp.measuring.measured_fit import ENDLESS, MeasuredFit
from mnist_amp.measuring.numerics_records import (
    Difference,
    LayerNumerics,
    Numerics,
    ParameterNumerics,
    PrecisionNumerics,
    Remedy,
    Scaling,
)
from mnist_amp.measuring.numerics_step import OneBatch, Start, StepRecorder, WarmUp, common_rows, first_rows
from mnist_amp.measuring.precisions import PRECISIONS
from mnist_amp.training.precision import device_name, effective_precision, half_hardware

FLOAT32 = "32-true"
SLOW_ROWS = 8  # of the batch where fp16 is emulated: 64 images take 14 s a step in a ResNet-18
EXPONENTS = (-24, 39)  # of the loss scales that are tried; the option takes no larger ones
ROUNDS = 5  # of layers that are run in float32 against an overflow
STEPS_PER_EXECUTION = "model.steps_per_execution"
ONE_STEP: dict[str, Any] = {
    **{
        **ENDLESS,
        "max_epochs": 1,
        "max_steps": -1,
        "limit_train_batches": 1,
        "limit_val_batches": 1,
        "overfit_batches": 0.0,
    },
    **{"accumulate_grad_batches": 1, "gradient_clip_val": None},
}


class StepFit(MeasuredFit):
    """A fit of one training step on a given batch.

    Args:
        config: settings of the fit.
        overrides: options of `fit` by name, which override `config`.
        recorder: sets up the step and records it.
    """

    def __init__(self, config: dict[str, Any], overrides: dict[str, Any], recorder: StepRecorder) -> None:
        self.batch = recorder.start.batch
        super().__init__(config, overrides, [recorder], **ONE_STEP)

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        loader = self.datamodule.train_dataloader
        self.datamodule.train_dataloader = lambda: OneBatch(self.batch, loader())

    def repeat(self, recorder: StepRecorder) -> StepRecorder:
        """Take another step with the same module in a new Trainer, and return its recorder."""
        self.datamodule.prepare_data = self.datamodule.setup = _do_nothing
        trainer = self.make_bare_trainer([recorder], ONE_STEP)
        trainer.fit(self.model, datamodule=self.datamodule)
        return recorder


def measure_numerics(
    config: dict[str, Any], precision_options: dict[str, dict[str, Any]], warmup: int = 15
) -> Numerics:
    """Compare the gradients and activations of one training step in float32 with those in other precisions.

    The noise of a gradient is its change in float32 when each weight moves to a neighbouring number. A permutation of
    the batch would not do for all modules: not with Dropout, whose masks stay in place, nor with sequences, whose first
    dimension may be the time.

    Where fp16 is emulated, the step has the first 8 rows of the batch only, if all tensors in it have the same first
    dimension. The record has the number.

    Args:
        config: settings of the fit, as `MeasuringCLI.fit_settings` returns them.
        precision_options: options of `fit` by name, for each precision by its name, as `PRECISIONS` has them.
        warmup: steps in float32 before the step that is compared.

    Returns:
        A record with an entry for each precision. If the step failed in one, this entry has the error.

    Raises:
        RequestError: the settings are wrong.
        RunError: the step failed in float32.
    """
    warm_up = WarmUp(warmup)
    fit = MeasuredFit(config, _options(config, PRECISIONS[FLOAT32]), [warm_up], **ENDLESS, limit_val_batches=1)
    if warm_up.weights is None:
        raise RunError(f"the fit ended before its step {warmup + 1}, so nothing could be compared")
    rows, batch_rows = _rows(fit.trainer, warm_up.batch, precision_options)
    batch = warm_up.batch if rows is None else first_rows(warm_up.batch, rows)
    start = Start(warm_up.weights, batch, int(config.get("seed_everything") or 0))
    device = device_name(fit.trainer)
    del fit
    reference, noise = _reference(config, start)
    measured = {name: _Measurement(name, reference.gradients) for name in precision_options}
    for name, measurement in measured.items():
        measurement.run(config, precision_options[name], start)
    return Numerics(
        device=device,
        warmup=warmup,
        rows=rows,
        batch_rows=batch_rows,
        parameters=[
            ParameterNumerics(name, float(gradient.double().norm()), noise[name])
            for name, gradient in reference.gradients.items()
        ],
        layers=_layers(reference, {name: each.first for name, each in measured.items()}),
        precisions=[each.record for each in measured.values()],
    )


def difference(reference: Tensor, gradient: Tensor) -> Difference:
    """Compare a gradient with that of float32.

    >>> difference(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    Difference(cosine=0.6, error=0.8, flushed=0.5)
    """
    if not bool(gradient.isfinite().all()):
        return Difference(None, None, None)
    wanted, found = reference.double().flatten(), gradient.double().flatten()
    norm, product = float(wanted.norm()), float(wanted.norm() * found.norm())
    cosine = 1.0 if torch.equal(wanted, found) else min(max(float(wanted @ found) / (product or 1.0), -1.0), 1.0)
    return Difference(
        cosine=cosine if product else None,
        error=float((found - wanted).norm()) / norm if norm else None,
        flushed=flushed(reference, gradient),
    )


def flushed(reference: Tensor, gradient: Tensor) -> float:
    """Return the share of the values that are zero, of those that are not zero in the reference; 0 if all are zero."""
    nonzero = reference != 0
    return float((nonzero & (gradient == 0)).sum()) / max(int(nonzero.sum()), 1)


def largest_exponent(is_finite: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the largest exponent for which a function is true; None if it is not true for `low`.

    >>> largest_exponent(lambda exponent: 2.0**exponent < 1000, -24, 39)
    9

    Args:
        is_finite: true up to some exponent, and false above it.
        low: the smallest exponent.
        high: the largest exponent.
    """
    if not is_finite(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_finite(middle) else (low, middle - 1)
    return low


class _Measurement:
    """The step in one precision.

    Attributes:
        record: the result.
        first: the recorder of the first step, with the loss scale of the Trainer.
    """

    def __init__(self, name: str, reference: Mapping[str, Tensor]) -> None:
        self.reference = reference
        self.record = PrecisionNumerics(name)
        self.first: StepRecorder | None = None

    def run(self, config: dict[str, Any], options: dict[str, Any], start: Start) -> None:
        name, self.first = self.record.name, StepRecorder(start)
        try:
            self.record = self._measure(StepFit(config, _options(config, options), self.first), self.first)
        except Exception as error:  # of any kind: the module's own code runs in a precision that it may not support
            text = describe_error(error)[0].partition("\n")[0]
            self.record = PrecisionNumerics(name, error=text, failed_layer=self.first.layers.failed_layer)

    def _measure(self, fit: StepFit, first: StepRecorder) -> PrecisionNumerics:
        if not first.gradients:
            raise RunError("the step has no gradients")
        steps = _Steps(fit, first)
        remedy = _remedy(steps, first.layers.overflows) if first.layers.overflows else None
        if remedy is not None and remedy.works:
            steps.keep_in_float32(remedy.layers)
        compared, scaling = steps.at(None), None
        if first.scale is not None:
            compared, scaling = self._scaling(steps, first.scale)
        return PrecisionNumerics(
            name=self.record.name,
            effective=effective_precision(fit.trainer),
            differences={
                name: difference(gradient, compared.gradients[name])
                for name, gradient in self.reference.items()
                if name in compared.gradients
            },
            scaling=scaling,
            remedy=remedy,
        )

    def _scaling(self, steps: "_Steps", scale: float) -> tuple[StepRecorder, Scaling]:
        """Return the step whose gradients are compared, and what the loss scale does."""
        low, high = EXPONENTS
        compared, used = steps.at(None), scale
        exponent = largest_exponent(lambda each: steps.at(each).is_finite, low, high)
        if exponent is None:
            is_finite = compared.is_finite
            return compared, Scaling(scale, used if is_finite else None, None, False, {}, {})
        if not compared.is_finite:
            compared, used = steps.at(exponent), 2.0**exponent
        return compared, Scaling(
            first=scale,
            used=used,
            largest=2.0**exponent,
            is_limit=exponent == high,
            unscaled=self._flushed(steps.at(0)) if exponent >= 0 else {},
            at_largest=self._flushed(steps.at(exponent)),
        )

    def _flushed(self, step: StepRecorder) -> dict[str, float]:
        found = step.gradients
        return {name: flushed(each, found[name]) for name, each in self.reference.items() if name in found}


class _Steps:
    """The steps of a fit, each taken once.

    Args:
        fit: it has taken the first step.
        first: the recorder of that step.
    """

    def __init__(self, fit: StepFit, first: StepRecorder) -> None:
        self.fit, self.first = fit, first
        self.layers: list[str] = []
        self.taken: dict[int | None, StepRecorder] = {None: first}

    def keep_in_float32(self, layers: list[str]) -> None:
        """Run layers in float32 in all further steps."""
        self.layers, self.taken = layers, {}

    def at(self, exponent: int | None) -> StepRecorder:
        """Return the step with a power of two as the loss scale; None for the scale of the first step."""
        if exponent not in self.taken:
            scale = self.first.scale if exponent is None else 2.0**exponent
            self.taken[exponent] = self.fit.repeat(StepRecorder(self.first.start, scale, self.layers))
        return self.taken[exponent]


def _remedy(steps: _Steps, overflows: list[str]) -> Remedy | None:
    """Run the layers that overflow in float32, and those that overflow then, until none does."""
    layers: list[str] = []
    scale = None if steps.first.scale is None else 1.0
    for _ in range(ROUNDS):
        new = [name for name in overflows if name and name not in layers]
        if not new:
            break
        layers += new
        try:
            step = steps.fit.repeat(StepRecorder(steps.first.start, scale, layers))
        except Exception:  # the module's own code may not take float32 there
            break
        if step.is_finite:
            return Remedy(layers, works=True)
        overflows = step.layers.overflows
    return Remedy(layers, works=False) if layers else None


def _reference(config: dict[str, Any], start: Start) -> tuple[StepRecorder, dict[str, float | None]]:
    """Return the step in float32, and the relative error by parameter when each weight is nudged."""
    reference = StepRecorder(start)
    fit = StepFit(config, _options(config, PRECISIONS[FLOAT32]), reference)
    if not reference.gradients:
        raise RunError("a step in float32 has no gradients, so nothing could be compared")
    for name, gradient in reference.gradients.items():
        if not bool(gradient.isfinite().all()):
            raise RunError(f"the gradient of {name} is not finite in float32, so nothing could be compared")
    nudged = fit.repeat(StepRecorder(start, nudged=True)).gradients
    return reference, {
        name: difference(gradient, nudged[name]).error if name in nudged else None
        for name, gradient in reference.gradients.items()
    }


def _layers(reference: StepRecorder, others: Mapping[str, StepRecorder | None]) -> list[LayerNumerics]:
    """Return the layers of the step in float32, and other modules that overflow in another precision."""
    watches = {name: other.layers for name, other in others.items() if other is not None}
    known = reference.layers.layers
    extra = dict.fromkeys(name for watch in watches.values() for name in watch.overflows if name not in known)
    found = []
    for name in [*known, *extra]:
        layer = known.get(name)
        overflows = [each for each, watch in watches.items() if name in watch.overflows]
        found.append(
            LayerNumerics(
                layer=name,
                kind="" if layer is None else layer.kind,
                largest_input=0.0 if layer is None else layer.largest_input,
                largest=0.0 if layer is None else layer.largest,
                types={each: watch.layers[name].types for each, watch in watches.items() if name in watch.layers},
                overflows=overflows if layer is None or layer.is_finite else [],
            )
        )
    return found


def _rows(
    trainer: Trainer, batch: Any, precision_options: Mapping[str, Mapping[str, Any]]
) -> tuple[int | None, int | None]:
    """Return how many rows of a batch are used, and how many it has; None if its tensors have no common number."""
    rows = common_rows(batch)
    on_cpu = trainer.strategy.root_device.type == "cpu"
    emulated = (
        on_cpu and any(map(_is_fp16_on_cpu, precision_options.values())) and not half_hardware(trainer, torch.float16)
    )
    return (min(rows, SLOW_ROWS) if rows is not None and emulated else rows), rows


def _options(config: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a precision, without callbacks, and with single steps."""
    single = {} if find(config, STEPS_PER_EXECUTION) is None else {STEPS_PER_EXECUTION: 1}
    return {**options, "trainer.callbacks": None, **single}


def _is_fp16_on_cpu(options: Mapping[str, Any]) -> bool:
    """Whether options choose fp16 on a CPU, where Lightning runs 16-mixed as bf16-mixed unless a plugin has fp16."""
    return options.get("trainer.precision") == "16-true" or "16-mixed" in json.dumps(options.get("trainer.plugins"))


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    pass
