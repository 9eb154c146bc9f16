"""The report of a comparison, from literal records."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mnist_amp.measuring import compare_report
from mnist_amp.measuring.compare_records import Setting
from mnist_amp.measuring.compare_rows import rows
from mnist_amp.reporting import plots
from tests.measuring.records import (
    CPU,
    MEMORY,
    SLOWER_HERE,
    comparison,
    failed_score,
    failed_speed,
    profiled,
    scores,
    speeds,
    speeds_at,
)

CHARTS = ["time.png", "memory.png", "accuracy.png", "loss.png"]


def test_report() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001, 0.001, 0.0012),
        *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.002, 0.0025),
        profiled("32-true", "32-true"),
        profiled("bf16-mixed", "bf16-mixed", peak_flops=4e11),
        failed_speed("bf16-mixed", 512, "the GPU is out of memory"),
        *scores("32-true", "32-true", 0.96),
        *scores("bf16-mixed", "bf16-mixed", 0.97, loss_scale=1024.0, skipped_steps=3),
    ]
    assert (
        compare_report.report(comparison(cells, precisions=["32-true", "bf16-mixed"]))
        == f"""# Which precision to use

With hidden_dim 128 and batch_size 64 on {CPU}:

- Use 32-true here: bf16-mixed is 0.50 times as fast as 32-true (0.48 to 0.50 in 3 rounds).
- Of a 32-true step, matrix products are 50%, the optimizer is 10%, other operations are 10%, overhead is 20% and waiting for data is 10%.
- Large matrix products are 2.0 times as fast in bf16-mixed as in 32-true on this device (400 and 200 GFLOP/s); a step reaches 25% of it in bf16-mixed and 50% of it in 32-true.
- bf16-mixed with hidden_dim 512 and batch_size 64 failed: the GPU is out of memory
- bf16-mixed is not faster than 32-true at any measured hidden_dim and batch_size.
- val_accuracy over 1 seed: 32-true 96.00%, bf16-mixed 97.00%.
- Memory of training: 32-true 8.00 MB, bf16-mixed 8.00 MB.

## Time

Medians of 3 interleaved rounds of at least 1 s, each in its own process.

| precision | ran as | hidden_dim | batch_size | ms per step | min to max | waiting, ms | speed (32-true = 1) |
|---|---|---|---|---|---|---|---|
| 32-true | 32-true | 128 | 64 | 1 | 1 to 1.2 | 0.1 | 1.00 |
| bf16-mixed | bf16-mixed | 128 | 64 | 2 | 2 to 2.5 | 0.1 | 0.50 |
| bf16-mixed | - | 512 | 64 | failed | - | - | - |

## Memory

| precision | hidden_dim | batch_size | weights, MB | gradients, MB | optimizer, MB | batch, MB | activations, MB | data, MB | peak, MB |
|---|---|---|---|---|---|---|---|---|---|
| 32-true | 128 | 64 | 1.00 | 1.00 | 2.00 | 3.00 | 1.00 | - | - |
| bf16-mixed | 128 | 64 | 1.00 | 1.00 | 2.00 | 3.00 | 1.00 | - | - |

## val_accuracy after 2 steps

| precision | ran as | seed | val_accuracy | final loss scale | skipped steps |
|---|---|---|---|---|---|
| 32-true | 32-true | 0 | 96.00% | - | - |
| bf16-mixed | bf16-mixed | 0 | 97.00% | 1,024 | 3 |

![Time of a step by hidden_dim](time.png)

![Memory by hidden_dim](memory.png)

![Accuracy by seed](accuracy.png)

![Training loss](loss.png)

## Measured on

- device: {CPU}
- network: SimpleNN (hidden_dim 128)
- versions: torch 2.15.0
- date: 2026-11-24
- command: `mnist-amp compare`
"""
    )


def test_files_and_printed_text(tmp_path: Path) -> None:
    printed = compare_report.write(comparison(SLOWER_HERE), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*CHARTS, "report.md"])
    assert printed.startswith(
        "\nprecision   ran as      hidden_dim  batch_size  ms per step  min to max  waiting, ms  speed (32-true = 1)\n"
        "32-true     32-true            128          64            1  1 to 1              0.1                 1.00\n"
    )
    assert f"\n\nWith hidden_dim 128 and batch_size 64 on {CPU}:\nUse 32-true here: " in printed
    assert printed.endswith("(report.md, results.json, time.png, memory.png, accuracy.png, loss.png)")


def test_no_charts_of_accuracies_that_were_not_measured() -> None:
    assert list(compare_report.charts(comparison(SLOWER_HERE[:3]))) == CHARTS[:2]


def test_a_failed_fit_is_a_row_of_the_accuracies() -> None:
    cells = [*scores("32-true", "32-true", 0.96), failed_score("bf16-mixed", "why")]
    assert compare_report.score_table(comparison(cells))[1:] == [
        ["32-true", "32-true", "0", "96.00%", "-", "-"],
        ["bf16-mixed", "-", "0", "failed: why", "-", "-"],
    ]


def test_peak_memory_has_priority_over_the_sum() -> None:
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001),
        profiled("32-true", "32-true", memory=replace(MEMORY, peak=123)),
    ]
    (row,) = rows(comparison(cells))
    assert row.memory is not None
    assert row.memory.total == 123


def test_tables_and_charts_have_a_column_and_a_panel_for_each_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"optimizer.fused": [True, False], "network.width": [8, 16]}
    settings = [
        Setting.of({"optimizer.fused": fused, "network.width": width}) for fused in (True, False) for width in (8, 16)
    ]
    cells = [cell for setting in settings for cell in speeds_at(setting, "32-true", "32-true", 0.001)]
    cells += [profiled("32-true", "32-true", setting) for setting in settings]
    found = comparison(cells, axes=axes, own=settings[0])
    assert [row[:4] for row in compare_report.speed_table(found)] == [
        ["precision", "ran as", "fused", "width"],
        ["32-true", "32-true", "true", "8"],
        ["32-true", "32-true", "true", "16"],
        ["32-true", "32-true", "false", "8"],
        ["32-true", "32-true", "false", "16"],
    ]
    assert [row[:3] for row in compare_report.memory_table(found)][1] == ["32-true", "true", "8"]
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "times", lambda *args: drawn.append(args[:3]))
    monkeypatch.setattr(plots, "memory", lambda *args: drawn.append(args[:2]))
    titles = [title for title, draw in compare_report.charts(found).values() if not draw(tmp_path)]
    assert titles == ["Time of a step by width", "Memory by width"]
    points = [(panel, "32-true", width) for panel in ("fused true", "fused false") for width in (8, 16)]
    assert drawn == [
        ([(*point, [0.001]) for point in points], {}, "width"),
        ([(*point, 8_000_000) for point in points], "width"),
    ]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"data.batch_size": [64]}, ("data.batch_size", "data.batch_size")),
        ({"optimizer.fused": [True, False], "data.batch_size": [64]}, ("optimizer.fused", "optimizer.fused")),
        ({"a.x": [1, 2], "a.y": [1, 2], "a.z": [1, 2]}, ("a.x", "a.z")),
    ],
)
def test_axes_of_the_charts(axes: dict[str, list[Any]], expected: tuple[str, str]) -> None:
    assert compare_report.drawn_axes(axes) == expected
