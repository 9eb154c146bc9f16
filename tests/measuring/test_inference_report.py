"""The section about inference, from records written by hand."""

from dataclasses import replace

from mnist_amp.measuring.inference_records import INT8, ONNX, InferenceResult, Timing
from mnist_amp.measuring.inference_report import loses, sections, sentences
from mnist_amp.reporting.document import Document, to_markdown


def result(way: str, one: float, many: float, metric: float, name: str = "val_accuracy") -> InferenceResult:
    return InferenceResult(
        way,
        single=Timing(1, [one] * 5, 1.5 * one, 100),
        bulk=Timing(256, [many] * 5, 1.5 * many, 50),
        metric=metric,
        baseline_metric=0.92,
        metric_name=name,
    )


FLOAT32 = result("32-true", 1e-3, 0.064, 0.92)
BF16 = result("bf16-true", 2e-3, 0.032, 0.919)
ONNX_FLOAT32 = replace(result(ONNX, 5e-4, 0.064, 0.92, "accuracy"), file_bytes=400_000)
INTEGERS = replace(result(INT8, 4e-4, 0.016, 0.918, "accuracy"), file_bytes=110_000)


def parts(results: list[InferenceResult]) -> list[str]:
    """Return the parts of the section as Markdown."""
    return to_markdown(Document("Title", sections(results))).strip().split("\n\n")[1:]


def test_a_section_with_all_ways() -> None:
    failed = InferenceResult("16-true", error="RuntimeError: no kernel for 'Half' | 'sin'")
    assert parts([FLOAT32, BF16, failed, ONNX_FLOAT32, INTEGERS]) == [
        "## Inference",
        "| way | latency, ms | p90, ms | inputs/s, batch of 256 | speed, one input | speed, batch of 256 | metric | note |\n"
        "|---|---|---|---|---|---|---|---|\n"
        "| 32-true | 1 | 1.5 | 4,000 | 1.00 | 1.00 | val_accuracy 92.00% |  |\n"
        "| bf16-true | 2 | 3 | 8,000 | 0.50 | 2.00 | val_accuracy 91.90% |  |\n"
        "| 16-true | - | - | - | - | - | - | failed: RuntimeError: no kernel for 'Half' \\| 'sin' |\n"
        "| onnxruntime float32 | 0.5 | 0.75 | 4,000 | 2.00 | 1.00 | accuracy 92.00% | 0.40 MB |\n"
        "| onnxruntime int8 | 0.4 | 0.6 | 16,000 | 2.50 | 4.00 | accuracy 91.80% | 0.11 MB |",
        "- For one input at a time, use onnxruntime int8: it is 2.50 times as fast as 32-true (2.50 to 2.50 in 5 rounds), "
        "with accuracy 91.80% (float32: 92.00%). Without onnxruntime, use 32-true.\n"
        "- For 256 inputs at a time, use onnxruntime int8: it is 4.00 times as fast as 32-true (4.00 to 4.00 in 5 "
        "rounds), with accuracy 91.80% (float32: 92.00%). Without onnxruntime, use bf16-true: it is 2.00 times as fast as "
        "32-true (2.00 to 2.00 in 5 rounds), with val_accuracy 91.90% (float32: 92.00%).\n"
        "- In onnxruntime, the speed of int8 against float32 is 1.25 for one input and 4.00 for many inputs; its file has 0.11 MB instead of 0.40 MB.",
    ]


def test_int8_that_loses_more_than_half_a_point_is_not_advised() -> None:
    lossy = replace(INTEGERS, metric=0.914)
    assert sentences([FLOAT32, lossy]) == [
        "For one input at a time, use 32-true: no other way is faster beyond noise and keeps the metric.",
        "For 256 inputs at a time, use 32-true: no other way is faster beyond noise and keeps the metric.",
        "onnxruntime int8 loses too much to be advised: accuracy 91.40% (float32: 92.00%).",
    ]


def test_a_difference_within_noise_is_no_reason() -> None:
    assert sentences([FLOAT32, result("bf16-true", 0.98e-3, 0.065, 0.92)]) == [
        "For one input at a time, use 32-true: no other way is faster beyond noise.",
        "For 256 inputs at a time, use 32-true: no other way is faster beyond noise.",
    ]


def test_ways_without_a_metric_are_compared_by_speed() -> None:
    untrained = [replace(found, metric=None, baseline_metric=None, metric_name=None) for found in (FLOAT32, BF16)]
    assert sentences(untrained)[1] == (
        "For 256 inputs at a time, bf16-true is the fastest way: it is 2.00 times as fast as 32-true (2.00 to 2.00 in 5 rounds). Its metric was not measured, so compare it before you use it."
    )


def test_a_batch_that_fails_leaves_the_single_input() -> None:
    note = "with 256 inputs: ValueError: only one"
    assert parts([replace(FLOAT32, bulk=None, note=note)])[1:] == [
        "| way | latency, ms | p90, ms | inputs/s, batch | speed, one input | speed, batch | metric | note |\n"
        "|---|---|---|---|---|---|---|---|\n"
        f"| 32-true | 1 | 1.5 | - | 1.00 | - | val_accuracy 92.00% | {note} |",
        "- For one input at a time, use 32-true: no other way is faster beyond noise.",
    ]


def test_the_reason_why_nothing_is_measured() -> None:
    assert parts([InferenceResult("32-true", error="the module has no forward")]) == [
        "## Inference",
        "Inference is not measured: the module has no forward.",
    ]


def test_without_the_baseline_nothing_is_compared() -> None:
    assert sentences([InferenceResult("32-true", error="an error"), BF16]) == [
        "For one input at a time: 32-true failed, so no way can be compared with it.",
        "For 256 inputs at a time: 32-true failed, so no way can be compared with it.",
    ]


def test_a_loss_is_worse_if_it_is_larger_by_more_than_a_percent() -> None:
    assert loses(result("16-true", 1.0, 1.0, 0.93, "val_loss"), "min")
    assert not loses(result("16-true", 1.0, 1.0, 0.929, "val_loss"), "min")
    assert not loses(result("16-true", 1.0, 1.0, 0.5, "val_loss"), "min")
    assert loses(result("16-true", 1.0, 1.0, float("nan"), "val_loss"), "min")
    # the accuracy of int8 has its own direction
    assert loses(replace(INTEGERS, metric=0.9), "min")
    assert not loses(replace(INTEGERS, metric=0.95), "min")


def test_json_keeps_a_result() -> None:
    assert InferenceResult.from_json(INTEGERS.to_json()) == INTEGERS
    assert InferenceResult("16-true", error="an error").to_json() == {"way": "16-true", "error": "an error"}
