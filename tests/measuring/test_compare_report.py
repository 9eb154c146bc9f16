"""The report of a comparison, from literal records."""

from pathlib import Path
from typing import Any

from mnist_amp.measuring import compare_report

MEMORY = {"weights": 1, "gradients": 1, "optimizer": 2, "batch": 3, "activations": 1, "peak": None, "data": None}
CPU = "CPU (x86_64, threads: 2)"


def speed(precision: str, effective: str, width: int, batch: int, *times: float) -> list[dict[str, Any]]:
    cell = {"kind": "speed", "precision": precision, "hidden_dim": width, "batch_size": batch, "effective": effective}
    memory = {name: None if size is None else size * 1_000_000 for name, size in MEMORY.items()}
    return [
        {**cell, "number": turn, "seconds": seconds, "data_seconds": 1e-4, "memory": memory}
        for turn, seconds in enumerate(times)
    ]


def score(precision: str, effective: str, *accuracies: float, **more: Any) -> list[dict[str, Any]]:
    cell = {"kind": "accuracy", "precision": precision, "hidden_dim": 128, "batch_size": 64, "effective": effective}
    curve = [[1.0, 2.3], [2.0, 1.9]]
    return [
        {**cell, "number": seed, "accuracy": accuracy, "of": "val_accuracy", "steps": 2, "curve": curve, **more}
        for seed, accuracy in enumerate(accuracies)
    ]


def results(cells: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    return {
        "command": "mnist-amp compare",
        "date": "2026-11-24",
        "versions": {"torch": "2.15.0"},
        "own": {"hidden_dim": 128, "batch_size": 64},
        "precisions": ["32-true", "bf16-mixed", "16-mixed"],
        "hidden_dims": [128, 512],
        "batch_sizes": [64],
        "seeds": 2,
        "rounds": 3,
        "seconds": 1.0,
        "epochs": 5,
        "config": {"seed_everything": 0},
        "device": CPU,
        "half_hardware": True,
        "cells": cells,
        **changed,
    }


SLOWER_HERE = [
    *speed("32-true", "32-true", 128, 64, 0.001, 0.001, 0.001),
    *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.002, 0.0025),
    *speed("16-mixed", "bf16-mixed", 128, 64, 0.002),
    *speed("32-true", "32-true", 512, 64, 0.004, 0.004, 0.004),
    *speed("bf16-mixed", "bf16-mixed", 512, 64, 0.002, 0.002, 0.001),
    *score("32-true", "32-true", 0.96, 0.97),
    *score("bf16-mixed", "bf16-mixed", 0.97, 0.96),
]


def test_slower_here_and_faster_when_wider() -> None:
    assert compare_report.verdicts(results(SLOWER_HERE)) == [
        f"For hidden_dim 128 and batch 64 on {CPU}, stay with 32-true: nothing else is faster.",
        "bf16-mixed against 32-true: slower, 0.50 times as fast (0.40 to 0.50 in 3 rounds).",
        "16-mixed really ran as bf16-mixed here, so it is not listed again.",
        "bf16-mixed pays from hidden_dim 256 on (at batch_size 64).",
        "Accuracy on the held-out images over 2 seeds: 32-true 96.50% ± 0.71%, bf16-mixed 96.50% ± 0.71% (no difference "
        "beyond the spread).",
        "Memory: 32-true 8.00 MB, bf16-mixed 8.00 MB.",
    ]


def test_faster_here() -> None:
    cells = [
        *speed("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
        *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.001, 0.0012, 0.001),
    ]
    assert compare_report.verdicts(results(cells))[:3] == [
        f"For hidden_dim 128 and batch 64 on {CPU}, use bf16-mixed: it is 3.00 times as fast as 32-true.",
        "bf16-mixed against 32-true: faster, 3.00 times as fast (2.50 to 3.00 in 3 rounds).",
        "bf16-mixed pays from hidden_dim 128 on (at batch_size 64) and from batch_size 64 on (at hidden_dim 128).",
    ]


def test_without_the_baseline() -> None:
    failed = {"kind": "speed", "precision": "32-true", "hidden_dim": 128, "batch_size": 64, "number": 0, "error": "why"}
    cells = [failed, *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.001)]
    assert compare_report.verdicts(results(cells)) == [
        "32-true failed here, so nothing can be compared with it.",
        "32-true at hidden_dim 128 and batch 64 failed: why",
    ]


def test_no_difference() -> None:
    cells = [
        *speed("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
        *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.003, 0.0031, 0.0029),
    ]
    assert compare_report.verdicts(results(cells))[:3] == [
        f"For hidden_dim 128 and batch 64 on {CPU}, stay with 32-true: nothing else is faster.",
        "bf16-mixed against 32-true: no difference beyond noise, 1.00 times as fast (0.97 to 1.03 in 3 rounds).",
        "bf16-mixed pays at no width and batch size that was measured.",
    ]


def test_faster_but_less_accurate_is_not_advised() -> None:
    cells = [
        *speed("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
        *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.001, 0.001, 0.001),
        *score("32-true", "32-true", 0.96, 0.97),
        *score("bf16-mixed", "bf16-mixed", 0.90, 0.9101),
    ]
    found = compare_report.verdicts(results(cells))
    assert found[0] == (
        f"For hidden_dim 128 and batch 64 on {CPU}, stay with 32-true: nothing faster keeps its accuracy."
    )
    assert found[-2].endswith("32-true 96.50% ± 0.71%, bf16-mixed 90.50% ± 0.71% (a difference).")


def test_faster_but_failing_to_train_is_not_advised() -> None:
    diverged = {**score("bf16-mixed", "bf16-mixed", 0.9)[0], "error": "the loss of step 3 is not finite"}
    del diverged["accuracy"], diverged["curve"]
    cells = [
        *speed("32-true", "32-true", 128, 64, 0.003, 0.003, 0.003),
        *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.001, 0.001, 0.001),
        *score("32-true", "32-true", 0.96, 0.97),
        diverged,
    ]
    found = compare_report.verdicts(results(cells))
    assert found[0].endswith("stay with 32-true: nothing faster keeps its accuracy.")
    assert found[2] == "Training in bf16-mixed with seed 0 failed: the loss of step 3 is not finite"


def test_steps_that_were_not_captured() -> None:
    cells = speed("32-true", "32-true", 128, 64, 0.003)
    cells[0]["not_captured"] = "the optimizer is not fused, so it waits for the host"
    assert (
        "The steps of 32-true were not captured as CUDA graphs, as the optimizer is not fused, so it waits for the host."
        in compare_report.verdicts(results(cells))
    )


def test_emulated_and_slow_by_design() -> None:
    cells = [
        *speed("32-true", "32-true", 128, 64, 0.001, 0.001),
        *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.002),
        *speed("fp16-cpu", "16-mixed", 128, 64, 0.01, 0.01),
    ]
    found = compare_report.verdicts(
        results(cells, precisions=["32-true", "bf16-mixed", "fp16-cpu"], half_hardware=False)
    )
    assert found[1:3] == [
        "bf16-mixed against 32-true: slower, 0.50 times as fast (0.50 to 0.50 in 2 rounds); this CPU has no instructions "
        "for it, so it is emulated.",
        "fp16-cpu against 32-true: slower, 0.10 times as fast (0.10 to 0.10 in 2 rounds); it is slow by design: a CPU has "
        "no fast fp16, and this is the code path of a GPU.",
    ]


def test_report() -> None:
    failed = {"kind": "speed", "precision": "bf16-mixed", "hidden_dim": 512, "batch_size": 64, "number": 0}
    cells = [
        *speed("32-true", "32-true", 128, 64, 0.001, 0.001, 0.0012),
        *speed("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.002, 0.0025),
        {**failed, "error": "the GPU is out of memory"},
        *score("32-true", "32-true", 0.96),
        *score("bf16-mixed", "bf16-mixed", 0.97, loss_scale=1024.0, skipped_steps=3),
    ]
    assert (
        compare_report.report(results(cells, precisions=["32-true", "bf16-mixed"]))
        == f"""# What each precision does here

- For hidden_dim 128 and batch 64 on {CPU}, stay with 32-true: nothing else is faster.
- bf16-mixed against 32-true: slower, 0.50 times as fast (0.48 to 0.50 in 3 rounds).
- bf16-mixed at hidden_dim 512 and batch 64 failed: the GPU is out of memory
- bf16-mixed pays at no width and batch size that was measured.
- Accuracy on the held-out images over 1 seed: 32-true 96.00%, bf16-mixed 97.00%.
- Memory: 32-true 8.00 MB, bf16-mixed 8.00 MB.

## Time

Medians of 3 interleaved rounds of 1 s each at least, in processes of their own.

| precision | ran as | hidden_dim | batch | ms a step | least to most | images ms | x 32-true |
|---|---|---|---|---|---|---|---|
| 32-true | 32-true | 128 | 64 | 1 | 1 to 1.2 | 0.1 | 1.00 |
| bf16-mixed | bf16-mixed | 128 | 64 | 2 | 2 to 2.5 | 0.1 | 0.50 |
| bf16-mixed | - | 512 | 64 | failed | - | - | - |

## Memory

| precision | hidden_dim | batch | weights, MB | gradients, MB | optimizer, MB | batch, MB | activations, MB | data, MB | peak, MB |
|---|---|---|---|---|---|---|---|---|---|
| 32-true | 128 | 64 | 1.00 | 1.00 | 2.00 | 3.00 | 1.00 | - | - |
| bf16-mixed | 128 | 64 | 1.00 | 1.00 | 2.00 | 3.00 | 1.00 | - | - |

## Accuracy after 2 steps, hidden_dim 128, batch 64

| precision | ran as | seed | accuracy | loss scale at the end | skipped steps |
|---|---|---|---|---|---|
| 32-true | 32-true | 0 | 96.00% | - | - |
| bf16-mixed | bf16-mixed | 0 | 97.00% | 1,024 | 3 |

![Time of a step by width](time.png)

![Memory by batch size](memory.png)

![Accuracy by seed](accuracy.png)

![Training loss](loss.png)

## Measured on

- device: {CPU}
- versions: torch 2.15.0
- date: 2026-11-24
- command: `mnist-amp compare`
"""
    )


def test_what_is_printed_and_written(tmp_path: Path) -> None:
    printed = compare_report.write(results(SLOWER_HERE), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*compare_report.CHARTS, "report.md"])
    assert printed.startswith(
        "\nprecision   ran as      hidden_dim  batch  ms a step  least to most  images ms  x 32-true\n"
        "32-true     32-true            128     64          1  1 to 1               0.1       1.00\n"
    )
    assert printed.endswith("(report.md, results.json, time.png, memory.png, accuracy.png, loss.png)")


def test_peak_memory_goes_before_the_sum() -> None:
    cells = speed("32-true", "32-true", 128, 64, 0.001)
    cells[0]["memory"]["peak"] = 123
    assert [row.total_bytes for row in compare_report.rows(results(cells))] == [123]
