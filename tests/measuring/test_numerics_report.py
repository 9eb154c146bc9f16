"""The report on numerics, from records written by hand."""

from dataclasses import replace
from typing import Any

import pytest

from mnist_amp.measuring.numerics_records import (
    Difference,
    LayerNumerics,
    Numerics,
    ParameterNumerics,
    PrecisionNumerics,
    Remedy,
    Risk,
    Scaling,
)
from mnist_amp.measuring.numerics_report import sections, sentences
from mnist_amp.reporting.document import Code, Document, Table, to_markdown

GOOD = Difference(cosine=0.9999, error=0.01, flushed=0.0)
LAYERS = [
    LayerNumerics("fc1", "Linear", 1.0, 5.25, {"bf16-mixed": "bfloat16", "16-mixed": "float16"}, []),
    LayerNumerics("fc2", "Linear", 5.25, 100.0, {"bf16-mixed": "bfloat16", "16-mixed": "float16"}, []),
]
SCALING = Scaling(65536.0, 65536.0, 2.0**20, False, {"fc1.weight": 0.25, "fc2.weight": 0.0}, {"fc1.weight": 0.0})
BF16 = PrecisionNumerics("bf16-mixed", "bf16-mixed", {"fc1.weight": GOOD, "fc2.weight": GOOD})
FP16 = replace(BF16, name="16-mixed", effective="16-mixed", scaling=SCALING)
PLUGIN = (
    "`--trainer.precision null --trainer.plugins mnist_amp.training.float32_layers.Float32Layers "
    "--trainer.plugins.layers '[{}]'`"
)


def numerics(*precisions: PrecisionNumerics, **more: Any) -> Numerics:
    parameters = [ParameterNumerics("fc1.weight", 2.0, 1e-6), ParameterNumerics("fc2.weight", 0.5, 2e-6)]
    known = {"parameters": parameters, "layers": LAYERS, "rows": 64, "batch_rows": 64}
    return Numerics(**{"device": "GPU", "warmup": 15, **known, **more}, precisions=list(precisions))


def layer(**changes: Any) -> list[LayerNumerics]:
    return [LAYERS[0], replace(LAYERS[1], **changes)]


def difference(**changes: Any) -> dict[str, Difference]:
    return {"fc1.weight": GOOD, "fc2.weight": replace(GOOD, **changes)}


def markdown(found: Numerics) -> str:
    """Return the sections without the title of a document."""
    return to_markdown(Document("Title", sections(found))).removeprefix("# Title\n\n").rstrip("\n")


def test_the_whole_report() -> None:
    more = [*numerics().parameters, ParameterNumerics("fc1.bias", 1e-9, 0.7)]
    report = markdown(numerics(BF16, FP16, parameters=more, rows=8))
    assert (
        report
        == """\
## Numerics by layer

One training step in float32 and in each precision, from the same weights (after 15 steps in float32), on the same \
batch, on GPU. The step has the first 8 of 64 rows of the batch, because fp16 is emulated here, which is slow. A \
gradient of a mean over fewer rows is larger, so the largest loss scale is lower than with the whole batch.

- No layer is at risk in bf16-mixed and 16-mixed.
- In 16-mixed, no gradient overflows up to a loss scale of 1048576 (2^20).
- Without gradient scaling, 16-mixed would turn 25% of the gradient of fc1.weight into zeros at worst, so the scaler \
is needed.
- Not compared, because in float32 the gradient is zero or nothing but rounding errors: fc1.bias.

## Gradients against float32

2 parameters. The error is the norm of the difference, as a share of the norm in float32. The noise is the same for \
float32 with each weight moved to a neighbouring number. Zeros are the values that are zero in this precision only.

| parameter | norm | noise | bf16-mixed cosine | bf16-mixed error | 16-mixed cosine | 16-mixed error | 16-mixed zeros |
|---|---|---|---|---|---|---|---|
| `fc1.weight` | 2 | 1e-06 | 0.9999 | 0.01 | 0.9999 | 0.01 | 0% |
| `fc2.weight` | 0.5 | 2e-06 | 0.9999 | 0.01 | 0.9999 | 0.01 | 0% |

## Activations

2 layers. The numbers are those of the step in float32.

| layer | kind | largest activation | of 65504 | output in bf16-mixed | output in 16-mixed |
|---|---|---|---|---|---|
| `fc2` | Linear | 100 | 0.15% | bfloat16 | float16 |
| `fc1` | Linear | 5.25 | 0.008% | bfloat16 | float16 |"""
    )


SCALE = "In 16-mixed, no gradient overflows up to a loss scale of 1048576 (2^20)."
NEEDED = (
    "Without gradient scaling, 16-mixed would turn 25% of the gradient of fc1.weight into zeros at worst, so the "
    "scaler is needed."
)
OVERFLOW = (
    "In 16-mixed, fc2 makes infinite or NaN outputs of finite inputs: in float32 the largest output is 70,000, and "
    "fp16 ends at 65,504. No loss scale helps."
)
UNDERFLOW = (
    "In 16-mixed, gradients of fc2 are zero that are not zero in float32: 50% of the values in fc2. These weights do "
    "not learn."
)
OVERFLOWED = {"largest": 70_000.0, "overflows": ["16-mixed"]}


@pytest.mark.parametrize(
    ("found", "risks", "expected"),
    [
        (
            numerics(replace(FP16, remedy=Remedy(["fc2", "out"], True)), layers=layer(**OVERFLOWED)),
            [Risk("overflow", "fc2", "16-mixed", 70_000.0)],
            f"{OVERFLOW} With fc2 and out in float32 all gradients are finite: {PLUGIN.format('fc2, out')}. Or use "
            "bf16-mixed.",
        ),
        (
            numerics(replace(FP16, remedy=Remedy(["fc2"], False)), layers=layer(**OVERFLOWED)),
            [Risk("overflow", "fc2", "16-mixed", 70_000.0)],
            f"{OVERFLOW} Running fc2 in float32 is not enough. Use bf16-mixed or 32-true.",
        ),
        (
            numerics(FP16, layers=layer(largest=16_376.0)),
            [Risk("near overflow", "fc2", "16-mixed", 16_376.0)],
            "In 16-mixed, an activation of fc2 reaches 16,376; fp16 ends at 65,504. Another batch may overflow. Run "
            f"these layers in float32 ({PLUGIN.format('fc2')}), or use bf16-mixed.",
        ),
        (
            numerics(BF16, layers=layer(largest=65_505.0, types={})),
            [Risk("overflow", "fc2", "fp16", 65_505.0)],
            "fp16 was not measured, but an activation of fc2 reaches 65,505; fp16 ends at 65,504. It overflows. Run "
            f"these layers in float32 ({PLUGIN.format('fc2')}), or use bf16-mixed.",
        ),
        (
            numerics(replace(FP16, differences=difference(flushed=0.5))),
            [Risk("underflow", "fc2", "16-mixed", 0.5)],
            f"{UNDERFLOW} The largest possible loss scale does not prevent it: use bf16-mixed, or run them in float32.",
        ),
        (
            numerics(
                replace(
                    FP16, differences=difference(flushed=0.5), scaling=replace(SCALING, at_largest={"fc2.weight": 0.01})
                )
            ),
            [Risk("underflow", "fc2", "16-mixed", 0.5)],
            f"{UNDERFLOW} A larger loss scale prevents it: `--scaler.init_scale 1048576`.",
        ),
        (
            numerics(replace(BF16, differences=difference(error=0.51))),
            [Risk("rounding", "fc2", "bf16-mixed", 0.51)],
            "In bf16-mixed, rounding errors are a large part of the gradients of fc2: 51% of the norm in fc2. Compare "
            "the accuracy over several seeds (`mnist-amp compare --seeds 5`). If it is lower, run these layers in "
            "float32.",
        ),
        (
            numerics(PrecisionNumerics("16-true", error="no kernel for Half", failed_layer="fc2")),
            [],
            "The step in 16-true failed in layer fc2: no kernel for Half.",
        ),
        (
            numerics(replace(FP16, scaling=replace(SCALING, largest=2.0**13, unscaled={}))),
            [],
            "In 16-mixed, no gradient overflows up to a loss scale of 8192 (2^13). A fit begins with 65536 and skips "
            "about 3 steps, each of which halves the scale. `--scaler.init_scale 8192` avoids this.",
        ),
        (
            numerics(replace(FP16, scaling=Scaling(65536.0, None, None, False, {}, {}))),
            [],
            "In 16-mixed, gradients overflow at each loss scale that was tried, down to 2^-24.",
        ),
    ],
)
def test_risks_and_their_sentences(found: Numerics, risks: list[Risk], expected: str) -> None:
    assert found.risks() == risks
    no_risk = f"No layer is at risk in {found.precisions[0].name}."
    assert [text for text in sentences(found) if text not in (SCALE, NEEDED, no_risk)] == [expected]
    assert (no_risk in sentences(found)) == (not risks and found.precisions[0].error is None)


@pytest.mark.parametrize(
    "found",
    [
        numerics(FP16, layers=layer(largest=16_375.0)),  # a quarter of 65504 is 16376
        numerics(FP16, layers=layer(largest=70_000.0)),  # finite in fp16, such as the value of a mask
        numerics(FP16, layers=layer(largest=30_000.0, largest_input=30_000.0)),  # handed on
        numerics(FP16, layers=layer(largest=30_000.0, types={"16-mixed": "float32"})),
        numerics(replace(FP16, differences=difference(flushed=0.01))),
        numerics(replace(BF16, differences=difference(flushed=0.5))),  # bfloat16 has the range of float32
        numerics(replace(BF16, differences=difference(error=0.5))),
        numerics(
            replace(BF16, differences=difference(error=0.9)),
            parameters=[ParameterNumerics("fc1.weight", 2.0, 1e-6), ParameterNumerics("fc2.weight", 1e-6, 1e-6)],
        ),
        numerics(
            replace(FP16, differences=difference(error=0.9, flushed=1.0)),
            parameters=[ParameterNumerics("fc1.weight", 2.0, 1e-6), ParameterNumerics("fc2.weight", 1.0, 0.25)],
        ),
    ],
)
def test_no_risk(found: Numerics) -> None:
    assert found.risks() == []


def test_the_worst_of_many_come_first() -> None:
    names = [f"layer{index}.weight" for index in range(20)]
    parameters = [ParameterNumerics(name, 1.0, 1e-6) for name in names]
    differences = {name: Difference(0.9, index / 100, 0.0) for index, name in enumerate(names)}
    differences[names[3]] = Difference(None, None, None)
    layers = [LayerNumerics(f"layer{index}", "Linear", 1.0, float(index), {}, []) for index in range(20)]
    layers[4] = replace(layers[4], overflows=["bf16-mixed"])
    found = numerics(replace(BF16, differences=differences), parameters=parameters, layers=layers)
    gradients, activations = (block.rows for block in sections(found) if isinstance(block, Table))
    assert len(gradients) == len(activations) == 16
    assert gradients[1:3] == [
        [Code("layer3.weight"), "1", "1e-06", "not finite", "-"],
        [Code("layer19.weight"), "1", "1e-06", "0.9000", "0.19"],
    ]
    assert [row[0] for row in activations[1:3]] == [Code("layer4"), Code("layer19")]


def test_records_survive_json() -> None:
    found = numerics(replace(FP16, remedy=Remedy(["fc2"], True)), PrecisionNumerics("x", error="failed"))
    assert Numerics.from_json(found.to_json()) == found
