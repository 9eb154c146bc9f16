"""The verdict of a comparison, from literal records."""

from typing import Any

from mnist_amp.measuring.compare_records import Comparison, Setting
from mnist_amp.measuring.verdict_sentences import heading, sentences
from tests.measuring.records import (
    CPU,
    SLOWER_HERE,
    comparison,
    failed_score,
    failed_speed,
    profiled,
    scores,
    speeds,
    speeds_at,
)

THREE_TIMES_AS_FAST = [
    *speeds("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
    *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.001, 0.001, 0.001),
    *scores("32-true", "32-true", 0.96, 0.97),
]


def test_heading() -> None:
    assert heading(comparison([])) == f"With hidden_dim 128 and batch_size 64 on {CPU}:"


def test_heading_without_axes() -> None:
    assert heading(comparison([], axes={}, own=Setting.of({}))) == f"With SimpleNN (hidden_dim 128) on {CPU}:"


def test_slower_here_and_faster_when_wider() -> None:
    assert sentences(comparison(SLOWER_HERE)) == [
        "Use 32-true here: bf16-mixed is 0.50 times as fast as 32-true (0.40 to 0.50 in 3 rounds).",
        "Of a single 32-true step, matrix products are 50%, the optimizer is 10%, other operations are 10%, overhead is 20% "
        "and waiting for data is 10%.",
        "Large matrix products are 1.00 times as fast in bf16-mixed as in 32-true on this device (200 and 200 "
        "GFLOP/s), so little can be gained by bf16-mixed.",
        "16-mixed ran as bf16-mixed here, so it is not listed separately.",
        "bf16-mixed is faster than 32-true from hidden_dim 256 upwards (with batch_size 64).",
        "val_accuracy over 2 seeds: 32-true 96.50% ± 0.71%, bf16-mixed 96.50% ± 0.71% (no difference beyond the "
        "spread).",
        "Memory of training: 32-true 8.00 MB, bf16-mixed 8.00 MB.",
    ]


def test_faster_here() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.001, 0.0012, 0.001),
        *speeds("16-mixed", "16-mixed", 128, 64, 0.002, 0.002, 0.002),
    ]
    assert sentences(comparison(cells))[:2] == [
        "Use bf16-mixed here: it is 3.00 times as fast as 32-true (2.50 to 3.00 in 3 rounds).",
        "16-mixed is 1.50 times as fast as 32-true (1.50 to 1.50 in 3 rounds).",
    ]
    wider = [*speeds("32-true", "32-true", 512, 64, 0.003), *speeds("bf16-mixed", "bf16-mixed", 512, 64, 0.001)]
    larger = [*speeds("32-true", "32-true", 128, 512, 0.003), *speeds("bf16-mixed", "bf16-mixed", 128, 512, 0.001)]
    assert sentences(comparison([*cells, *wider, *larger]))[2] == (
        "bf16-mixed is faster than 32-true from hidden_dim 128 upwards (with batch_size 64) and from batch_size 64 "
        "upwards (with hidden_dim 128)."
    )


def test_fp16_on_a_cpu_is_not_the_advice_if_there_is_another_precision() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.002),
        *speeds("fp16-cpu", "16-mixed", 128, 64, 0.001),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.004),
    ]
    found = sentences(comparison(cells, precisions=["32-true", "fp16-cpu", "bf16-mixed"]))
    assert found[0].startswith("Use 32-true here: bf16-mixed is 0.50 times as fast as 32-true (")
    assert found[1].startswith("fp16-cpu is 2.00 times as fast as 32-true (")


def test_faster_elsewhere_only() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.002),
        *speeds("32-true", "32-true", 512, 512, 0.002),
        *speeds("bf16-mixed", "bf16-mixed", 512, 512, 0.001),
    ]
    assert sentences(comparison(cells))[1] == (
        "bf16-mixed is faster than 32-true elsewhere, for example with hidden_dim 512 and batch_size 512."
    )


def test_without_the_baseline() -> None:
    cells = [failed_speed("32-true", 128, "why"), *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.001)]
    assert sentences(comparison(cells)) == [
        "32-true failed here, so no precision can be compared with it.",
        "32-true with hidden_dim 128 and batch_size 64 failed: why",
    ]


def test_with_the_baseline_alone() -> None:
    cells = [*speeds("32-true", "32-true", 128, 64, 0.001), failed_speed("bf16-mixed", 128, "why")]
    assert sentences(comparison(cells)) == [
        "Use 32-true here: no other precision could be measured.",
        "bf16-mixed with hidden_dim 128 and batch_size 64 failed: why",
    ]


def test_no_difference() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.003, 0.0031, 0.0029),
    ]
    assert sentences(comparison(cells))[:2] == [
        "Use 32-true here: bf16-mixed is 1.00 times as fast as 32-true (0.97 to 1.03 in 3 rounds), no difference "
        "beyond noise.",
    ]


def test_faster_but_less_accurate_is_not_advised() -> None:
    found = sentences(comparison([*THREE_TIMES_AS_FAST, *scores("bf16-mixed", "bf16-mixed", 0.90, 0.9101)]))
    assert found[0] == (
        "Use 32-true here: bf16-mixed is 3.00 times as fast as 32-true (3.00 to 3.00 in 3 rounds), but its "
        "val_accuracy is worse."
    )
    assert found[-1].endswith("32-true 96.50% ± 0.71%, bf16-mixed 90.50% ± 0.71% (a difference).")


def test_faster_but_failing_to_train_is_not_advised() -> None:
    diverged = failed_score("bf16-mixed", "the loss of step 3 is not finite")
    found = sentences(comparison([*THREE_TIMES_AS_FAST, diverged]))
    assert found[:2] == [
        "Use 32-true here: bf16-mixed is 3.00 times as fast as 32-true (3.00 to 3.00 in 3 rounds), but its training "
        "failed.",
        "Training in bf16-mixed with seed 0 failed: the loss of step 3 is not finite",
    ]


def test_steps_that_were_not_captured() -> None:
    reason = "the optimizer is not fused, so it waits for the host"
    cells = speeds("32-true", "32-true", 128, 64, 0.003, not_captured=reason)
    assert f"The steps of 32-true were not captured as CUDA graphs: {reason}." in sentences(comparison(cells))


def test_the_cost_of_compiling() -> None:
    cells = [
        cell
        for seconds in (21.04, 3.0)
        for cell in speeds("32-true", "32-true", 128, 64, 0.003, compiled="the whole step", compile_seconds=seconds)
    ]
    assert (
        "In 32-true, compiling the whole step took 21.0 s at most and 3.0 s at least, because code is kept for the next "
        "process. No other time has it."
    ) in sentences(comparison(cells))


def test_the_cost_of_compiling_in_one_round() -> None:
    cells = speeds("32-true", "32-true", 128, 64, 0.003, compiled="the whole step", compile_seconds=13.62)
    assert "In 32-true, compiling the whole step took 13.6 s. No other time has it." in sentences(comparison(cells))


def test_the_gain_of_compiling() -> None:
    times = {
        ("32-true", False): (0.003, 0.0033, 0.0036),
        ("32-true", True): (0.0015, 0.0015, 0.0015),
        ("bf16-mixed", False): (0.001, 0.001, 0.001),
        ("bf16-mixed", True): (0.0005, 0.001, 0.002),
    }
    cells = [
        cell
        for (name, compiles), seconds in times.items()
        for cell in speeds_at(Setting.of({"compile": compiles}), name, name, *seconds)
    ]
    own = Setting.of({"compile": False})
    found = sentences(comparison(cells, axes={"compile": [False, True]}, own=own))
    assert [text for text in found if "compile" in text] == [
        "With compile, a step in 32-true takes 1.5 ms instead of 3.3 ms: it is 2.20 times as fast as without it (2.00 "
        "to 2.40 in 3 rounds).",
        "With compile, a step in bf16-mixed takes 1 ms instead of 1 ms: it is 1.00 times as fast as without it (0.50 "
        "to 2.00 in 3 rounds), no difference beyond noise.",
    ]


def test_faster_here_and_elsewhere() -> None:
    cells = [
        cell
        for compiles in (False, True)
        for name, seconds in (("32-true", 0.003), ("bf16-mixed", 0.001))
        for cell in speeds_at(Setting.of({"compile": compiles}), name, name, seconds, seconds, seconds)
    ]
    own = Setting.of({"compile": False})
    assert sentences(comparison(cells, axes={"compile": [False, True]}, own=own))[-1] == (
        "bf16-mixed is faster than 32-true at other settings as well, for example with compile true."
    )


def test_not_faster_at_any_setting() -> None:
    cells = [
        cell
        for width in (128, 512)
        for precision, seconds in (("32-true", 0.001), ("bf16-mixed", 0.002))
        for cell in speeds(precision, precision, width, 64, seconds, seconds)
    ]
    assert sentences(comparison(cells))[-1] == (
        "bf16-mixed is not faster than 32-true at any measured hidden_dim and batch_size."
    )


def test_no_advice_if_training_fails_in_the_baseline() -> None:
    cells = [*THREE_TIMES_AS_FAST[:6], failed_score("32-true", "the loss is nan")]
    assert sentences(comparison(cells))[0] == (
        "Training in 32-true failed, so no precision can be advised: the loss is nan."
    )


def test_one_round_is_no_ground_for_advice() -> None:
    cells = [*speeds("32-true", "32-true", 128, 64, 0.003), *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.001)]
    assert sentences(comparison(cells, rounds=1))[0] == (
        "Measure with --rounds 3 or more before you choose: bf16-mixed is 3.00 times as fast as 32-true (in 1 round)."
    )


def test_a_busy_machine() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.003, 0.001),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.003),
    ]
    note = "The slowest rounds took 2.2 times as long as the fastest: the machine was busy, so measure again."
    assert note in sentences(comparison(cells))


def test_an_output_that_is_not_finite_speaks_against_a_precision() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.003),
        profiled("32-true", "32-true"),
        *speeds("16-mixed", "16-mixed", 128, 64, 0.001),
        profiled("16-mixed", "16-mixed", non_finite="model.fc2"),
    ]
    assert sentences(comparison(cells, precisions=["32-true", "16-mixed"]))[0] == (
        "Use 32-true here: 16-mixed is 3.00 times as fast as 32-true (in 1 round), but the output of layer model.fc2 is not finite (inf or nan)."
    )


def test_smaller_batches_where_the_memory_is_too_small() -> None:
    sizes = {"network.hidden_dim": [128], "data.batch_size": [64]}
    cells = [
        failed_speed("32-true", 128, "the GPU is out of memory", out_of_memory=True),
        failed_speed("16-mixed", 128, "the GPU is out of memory", out_of_memory=True),
        *speeds("32-true", "32-true", 128, 32, 0.003),
        *speeds("16-mixed", "16-mixed", 128, 32, 0.001),
    ]
    found = comparison(cells, precisions=["32-true", "16-mixed"], axes=sizes)
    assert heading(found) == f"With hidden_dim 128 and batch_size 32 on {CPU}:"
    assert sentences(found)[:2] == [
        "Use 16-mixed here: it is 3.00 times as fast as 32-true (in 1 round).",
        "The memory is too small for hidden_dim 128 and batch_size 64 in 32-true and 16-mixed.",
    ]


def test_emulated_and_slow_by_design() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001, 0.001),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.002),
        *speeds("fp16-cpu", "16-mixed", 128, 64, 0.01, 0.01),
    ]
    found = sentences(comparison(cells, precisions=["32-true", "bf16-mixed", "fp16-cpu"], half_hardware=False))
    assert found[:2] == [
        "Use 32-true here: bf16-mixed is 0.50 times as fast as 32-true (0.50 to 0.50 in 2 rounds). This CPU has no "
        "instructions for bfloat16, so PyTorch emulates it.",
        "fp16-cpu is 0.10 times as fast as 32-true (0.10 to 0.10 in 2 rounds). It is slow by design: a CPU has no fast "
        "fp16, and this precision only runs the code path of a GPU.",
    ]


def along(axes: dict[str, list[Any]], own: dict[str, Any], *measured: tuple[dict[str, Any], float]) -> Comparison:
    """Return a comparison in which bf16-mixed is measured, each time with how many times as fast as 32-true it is."""
    cells = [
        cell
        for values, speed in measured
        for precision, seconds in (("32-true", 0.001 * speed), ("bf16-mixed", 0.001))
        for cell in speeds_at(Setting.of(values), precision, precision, seconds)
    ]
    return comparison(cells, axes=axes, own=Setting.of(own))


def test_a_single_axis() -> None:
    axes = {"optimizer.lr": [0.001, 0.1]}
    found = along(axes, {"optimizer.lr": 0.001}, ({"optimizer.lr": 0.001}, 0.5), ({"optimizer.lr": 0.1}, 2.0))
    assert heading(found) == f"With lr 0.001 on {CPU}:"
    assert sentences(found)[1] == "bf16-mixed is faster than 32-true from lr 0.01 upwards."


def test_three_axes() -> None:
    axes: dict[str, list[Any]] = {"network.width": [8, 16], "data.batch_size": [64], "optimizer.fused": [True, None]}
    own = {"network.width": 8, "data.batch_size": 64, "optimizer.fused": None}
    found = along(axes, own, (own, 2.0), ({**own, "network.width": 16}, 2.0), ({**own, "optimizer.fused": True}, 2.0))
    assert sentences(found)[1] == (
        "bf16-mixed is faster than 32-true from width 8 upwards (with batch_size 64 and fused null)."
    )


def test_an_axis_without_numbers() -> None:
    axes: dict[str, list[Any]] = {"optimizer.fused": [True, False]}
    fused, unfused = {"optimizer.fused": True}, {"optimizer.fused": False}
    assert sentences(along(axes, fused, (fused, 0.5), (unfused, 2.0)))[1] == (
        "bf16-mixed is faster than 32-true elsewhere, for example with fused false."
    )
    assert sentences(along(axes, fused, (fused, 2.0), (unfused, 0.5)))[1] == (
        "bf16-mixed is faster than 32-true at no other measured setting."
    )
    assert sentences(along(axes, fused, (fused, 0.5), (unfused, 0.5)))[1] == (
        "bf16-mixed is not faster than 32-true at any measured fused."
    )
