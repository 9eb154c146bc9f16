"""The numerics of a training step in words and tables, from their records; no torch here."""

import math
from collections.abc import Sequence

from mnist_amp.measuring.numerics_records import (
    FP16_LARGEST,
    LARGE_FLUSHED,
    Kind,
    LayerNumerics,
    Numerics,
    ParameterNumerics,
    PrecisionNumerics,
    Risk,
    Scaling,
)
from mnist_amp.reporting.document import Block, Bullets, Code, Heading, Inline, Table, Text
from mnist_amp.wording import counted, listed

SHOWN = 15  # rows of a table
NAMED = 6  # layers in a sentence
PLUGIN = "mnist_amp.training.float32_layers.Float32Layers"

COLUMNS = (
    "The error is the norm of the difference, as a share of the norm in float32. The noise is the same for float32 "
    "with each weight moved to a neighbouring number. Zeros are the values that are zero in this precision only."
)


def sections(numerics: Numerics) -> list[Block]:
    """Return the parts of a report: the setting, a list of findings, and two tables.

    Args:
        numerics: the record.
    """
    return [
        Heading("Numerics by layer"),
        Text(_setting(numerics)),
        Bullets([Text(sentence) for sentence in sentences(numerics)]),
        *_parameter_section(numerics),
        *_layer_section(numerics),
    ]


def sentences(numerics: Numerics) -> list[str]:
    """Return a sentence or more for each finding, with what to do."""
    risks = numerics.risks()
    found = [text for each in numerics.precisions for text in _of_precision(each, risks, numerics)]
    unmeasured = [risk for risk in risks if risk.precision == "fp16"]
    by_kind = [[risk for risk in unmeasured if risk.kind == kind] for kind in ("overflow", "near overflow")]
    found += [
        f"fp16 was not measured, but {_large_activations(layers)} {_advice_for_large(layers)}"
        for layers in by_kind
        if layers
    ]
    measured = [each.name for each in numerics.precisions if each.error is None]
    if not risks and measured:
        found.insert(0, f"No layer is at risk in {listed(measured)}.")
    if zeros := [parameter.name for parameter in numerics.parameters if parameter.is_zero]:
        found.append(
            f"Not compared, because in float32 the gradient is zero or nothing but rounding errors: {_names(zeros)}."
        )
    return found


def _setting(numerics: Numerics) -> str:
    text = (
        f"One training step in float32 and in each precision, from the same weights (after "
        f"{counted(numerics.warmup, 'step')} in float32), on the same batch, on {numerics.device}."
    )
    if numerics.rows is not None and numerics.batch_rows is not None and numerics.rows < numerics.batch_rows:
        text += (
            f" The step has the first {numerics.rows} of {counted(numerics.batch_rows, 'row')} of the batch, because "
            "fp16 is emulated here, which is slow. A gradient of a mean over fewer rows is larger, so the largest loss "
            "scale is lower than with the whole batch."
        )
    return text


def _of_precision(precision: PrecisionNumerics, risks: list[Risk], numerics: Numerics) -> list[str]:
    """Return the sentences about one precision."""
    if precision.error is not None:
        where = f" in layer {precision.failed_layer}" if precision.failed_layer else ""
        return [f"The step in {precision.name} failed{where}: {precision.error.removesuffix('.')}."]
    own: dict[Kind, list[Risk]] = {}
    for risk in risks:
        if risk.precision == precision.name:
            own.setdefault(risk.kind, []).append(risk)
    found = []
    if "overflow" in own:
        found.append(_overflow(precision, own["overflow"]))
    if "near overflow" in own:
        layers = own["near overflow"]
        found.append(f"In {precision.name}, {_large_activations(layers)} {_advice_for_large(layers)}")
    if "underflow" in own:
        found.append(_underflow(precision, own["underflow"]))
    if "rounding" in own:
        found.append(_rounding(precision, own["rounding"]))
    return found + ([] if precision.scaling is None else _scale(precision.name, precision.scaling, numerics))


def _overflow(precision: PrecisionNumerics, risks: list[Risk]) -> str:
    """Return the sentences about layers that overflow, and which layers in float32 mend it."""
    remedy = precision.remedy
    layers = _names([risk.layer or "the LightningModule" for risk in risks])
    text = f"In {precision.name}, {layers} makes infinite or NaN outputs of finite inputs{_reaches(risks)}."
    if remedy is None or not remedy.works:
        tried = f" Running {_names(remedy.layers)} in float32 is not enough." if remedy is not None else ""
        return f"{text} No loss scale helps.{tried} Use bf16-mixed or 32-true."
    return (
        f"{text} No loss scale helps. With {_names(remedy.layers)} in float32 all gradients are finite: "
        f"{_plugin(remedy.layers)}. Or use bf16-mixed."
    )


def _reaches(risks: Sequence[Risk]) -> str:
    largest = max(risk.value for risk in risks)
    if largest <= FP16_LARGEST:  # within the layer
        return ""
    return f": in float32 the largest output is {largest:,.0f}, and fp16 ends at 65,504"


def _large_activations(risks: Sequence[Risk]) -> str:
    found = [f"{risk.layer or 'the LightningModule'} reaches {risk.value:,.0f}" for risk in risks[:NAMED]]
    more = f" and {len(risks) - NAMED} more layers are as large" if len(risks) > NAMED else ""
    return f"an activation of {listed(found)}{more}; fp16 ends at 65,504."


def _advice_for_large(risks: Sequence[Risk]) -> str:
    layers = [risk.layer for risk in risks if risk.layer]
    reason = "It overflows" if any(risk.kind == "overflow" for risk in risks) else "Another batch may overflow"
    mend = f" Run these layers in float32 ({_plugin(layers)}), or use bf16-mixed." if layers else " Use bf16-mixed."
    return f"{reason}.{mend}"


def _underflow(precision: PrecisionNumerics, risks: list[Risk]) -> str:
    scaling, layers = precision.scaling, [risk.layer for risk in risks]
    worst = max(risks, key=lambda risk: risk.value)
    text = (
        f"In {precision.name}, gradients of {_names(layers)} are zero that are not zero in float32: "
        f"{_percent(worst.value)} of the values in {worst.layer or 'the LightningModule'}. These weights do not learn."
    )
    if scaling is None:
        return f"{text} There is no gradient scaler: use 16-mixed or bf16-mixed."
    shares = [share for name, share in scaling.at_largest.items() if name.rpartition(".")[0] in layers]
    if scaling.largest is not None and scaling.largest > scaling.first and max(shares, default=1) <= LARGE_FLUSHED:
        return f"{text} A larger loss scale prevents it: `--scaler.init_scale {_number(scaling.largest)}`."
    return f"{text} The largest possible loss scale does not prevent it: use bf16-mixed, or run them in float32."


def _rounding(precision: PrecisionNumerics, risks: list[Risk]) -> str:
    worst = max(risks, key=lambda risk: risk.value)
    return (
        f"In {precision.name}, rounding errors are a large part of the gradients of "
        f"{_names([risk.layer for risk in risks])}: {_percent(worst.value)} of the norm in {worst.layer}. Compare the "
        "accuracy over several seeds (`mnist-amp compare --seeds 5`). If it is lower, run these layers in float32."
    )


def _scale(name: str, scaling: Scaling, numerics: Numerics) -> list[str]:
    """Return the sentences about the loss scale."""
    if scaling.largest is None:
        return [f"In {name}, gradients overflow at each loss scale that was tried, down to 2^-24."]
    found = []
    exponent = round(math.log2(scaling.largest))
    limit = ", the largest that was tried" if scaling.is_limit else ""
    text = f"In {name}, no gradient overflows up to a loss scale of {_number(scaling.largest)} (2^{exponent}){limit}."
    if scaling.largest < scaling.first:
        skipped = math.ceil(math.log2(scaling.first / scaling.largest))
        text += (
            f" A fit begins with {_number(scaling.first)} and skips about {counted(skipped, 'step')}, each of which "
            f"halves the scale. `--scaler.init_scale {_number(scaling.largest)}` avoids this."
        )
    found.append(text)
    zeros = {parameter.name for parameter in numerics.parameters if parameter.is_zero}
    shares = {each: share for each, share in scaling.unscaled.items() if each not in zeros}
    if shares:
        worst = max(shares, key=lambda each: shares[each])
        needed = "so the scaler is needed" if shares[worst] > LARGE_FLUSHED else "so it is hardly needed in this step"
        found.append(
            f"Without gradient scaling, {name} would turn {_percent(shares[worst])} of the gradient of {worst} into "
            f"zeros at worst, {needed}."
        )
    return found


def _plugin(layers: Sequence[str]) -> str:
    names = ", ".join(layers)
    return f"`--trainer.precision null --trainer.plugins {PLUGIN} --trainer.plugins.layers '[{names}]'`"


def _names(names: Sequence[str]) -> str:
    known = list(dict.fromkeys(name or "the LightningModule" for name in names))
    return listed([*known[:NAMED], f"{len(known) - NAMED} more"] if len(known) > NAMED else known)


# the tables


def _parameter_section(numerics: Numerics) -> list[Block]:
    compared = [each for each in numerics.precisions if each.differences]
    parameters = [each for each in numerics.parameters if not each.is_zero]
    if not compared or not parameters:
        return []
    worst = sorted(parameters, key=lambda each: _worst_error(each, compared), reverse=True)[:SHOWN]
    head = ["parameter", "norm", "noise", *(f"{each.name} {column}" for each in compared for column in _columns(each))]
    rows: list[list[Inline]] = [
        [Code(each.name), f"{each.norm:.3g}", _error(each.noise), *_cells(each.name, compared)] for each in worst
    ]
    return [
        Heading("Gradients against float32"),
        Text(f"{_of_all(len(rows), len(parameters), 'parameter', 'with the largest errors')} {COLUMNS}"),
        Table([head, *rows], "Parameters"),
    ]


def _columns(precision: PrecisionNumerics) -> list[str]:
    return ["cosine", "error", *(["zeros"] if precision.is_fp16 else [])]


def _cells(name: str, compared: Sequence[PrecisionNumerics]) -> list[str]:
    cells = []
    for precision in compared:
        found = precision.differences.get(name)
        if found is None:
            cells += ["-"] * len(_columns(precision))
            continue
        cells += ["not finite" if found.flushed is None else _cosine(found.cosine), _error(found.error)]
        if precision.is_fp16:
            cells.append("-" if found.flushed is None else _percent(found.flushed))
    return cells


def _worst_error(parameter: ParameterNumerics, compared: Sequence[PrecisionNumerics]) -> float:
    found = [each.differences[parameter.name] for each in compared if parameter.name in each.differences]
    return max((math.inf if each.error is None else each.error for each in found), default=0.0)


def _layer_section(numerics: Numerics) -> list[Block]:
    if not numerics.layers:
        return []
    worst = sorted(numerics.layers, key=lambda each: (bool(each.overflows), each.largest), reverse=True)[:SHOWN]
    names = [each.name for each in numerics.precisions if any(each.name in layer.types for layer in worst)]
    head = ["layer", "kind", "largest activation", "of 65504", *(f"output in {name}" for name in names)]
    rows: list[list[Inline]] = [
        [
            Code(each.layer) if each.layer else "the LightningModule",
            each.kind or "-",
            f"{each.largest:,.4g}" if each.largest < 1000 else f"{each.largest:,.0f}",
            _percent(each.largest / FP16_LARGEST),
            *(_output(each, name) for name in names),
        ]
        for each in worst
    ]
    shown = _of_all(len(rows), len(numerics.layers), "layer", "with the largest activations")
    return [
        Heading("Activations"),
        Text(f"{shown} The numbers are those of the step in float32."),
        Table([head, *rows], "Layers"),
    ]


def _of_all(shown: int, count: int, noun: str, worst: str) -> str:
    return f"{counted(count, noun)}." if shown == count else f"The {shown} {worst} of {counted(count, noun)}."


def _output(layer: LayerNumerics, precision: str) -> str:
    types = layer.types.get(precision, "-")
    return f"{types}, overflows" if precision in layer.overflows else types


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:,.0f}%" if percent >= 10 else f"{percent:.2g}%"


def _number(scale: float) -> str:
    return f"{scale:.0f}" if scale >= 1 else f"{scale:g}"


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.2g}"


def _cosine(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:.4f}"
