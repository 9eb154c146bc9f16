"""The report of a comparison, from literal records."""

from dataclasses import replace
from pathlib import Path

from mnist_amp.measuring import compare_report
from mnist_amp.measuring.compare_records import Setting
from mnist_amp.measuring.compare_rows import rows
from mnist_amp.measuring.compare_summary import summary
from tests.measuring.records import (
    CPU,
    MEMORY,
    SLOWER_HERE,
    comparison,
    failed_score,
    failed_speed,
    profiled,
    scores,
    sized,
    speeds,
    speeds_at,
)
from tests.reporting.test_document import Page

CHARTS = ["time-hidden_dim.png", "memory.png", "metric.png", "loss.png"]


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
- Of a single 32-true step, matrix products are 50%, the optimizer is 10%, other operations are 10%, overhead is 20% and waiting for data is 10%.
- Large matrix products are 2.0 times as fast in bf16-mixed as in 32-true on this device (400 and 200 GFLOP/s); of these peaks, a step reaches 25% of that of bf16-mixed and 50% of that of 32-true.
- bf16-mixed with hidden_dim 512 and batch_size 64 failed: the GPU is out of memory
- bf16-mixed is not faster than 32-true at any measured hidden_dim and batch_size.
- val_accuracy over 1 seed: 32-true 96.00%, bf16-mixed 97.00%.
- Memory of training: 32-true 8.00 MB, bf16-mixed 8.00 MB.

## Time

Medians of 3 interleaved rounds of at least 1 s, each in its own process. The speed is the median of the ratios within each round.

| precision | ran as | hidden_dim | batch_size | ms per step | min to max | waiting, ms | speed (32-true = 1) |
|---|---|---|---|---|---|---|---|
| 32-true | 32-true | 128 | 64 | 1 | 1 to 1.2 | 0.1 | 1.00 |
| bf16-mixed | bf16-mixed | 128 | 64 | 2 | 2 to 2.5 | 0.1 | 0.50 |
| bf16-mixed | - | 512 | 64 | failed | - | - | - |

## Work of a step

Shares of the time of single steps. A step is a batch here, from its request to the next. Matrix products include convolutions and attention. The peak of the device was measured by large matrix products in this precision.

| precision | hidden_dim | batch_size | GFLOP per step | GFLOP/s | of the peak | matrix products | casts | other operations | optimizer | overhead | waiting for data |
|---|---|---|---|---|---|---|---|---|---|---|---|
| 32-true | 128 | 64 | 0.1 | 100 | 50.0% of 200 | 50% | 0% | 10% | 10% | 20% | 10% |
| bf16-mixed | 128 | 64 | 0.1 | 100 | 25.0% of 400 | 50% | 0% | 10% | 10% | 20% | 10% |

## Types

Operations with inputs of a type, and layers with outputs of it, with hidden_dim 128 and batch_size 64.

| precision | dtype | matrix products | other operations | layers |
|---|---|---|---|---|
| 32-true | float32 | 2 | 0 | fc1 |
| bf16-mixed | float32 | 2 | 0 | fc1 |

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

## Measured on

- device: {CPU}
- network: SimpleNN (hidden_dim 128)
- versions: torch 2.15.0
- date: 2026-11-24
- command: `mnist-amp compare`

## Charts

These files are beside this report; `report.html` holds them all in one file.

![Time of a step by hidden_dim, with batch_size 64](time-hidden_dim.png)

![Memory by hidden_dim, with batch_size 64](memory.png)

![val_accuracy by seed](metric.png)

![Training loss](loss.png)
"""
    )


def test_files_and_printed_text(tmp_path: Path) -> None:
    found = comparison(SLOWER_HERE)
    printed = compare_report.write(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*CHARTS, "report.html", "report.md"])
    assert printed == summary(found, f"{tmp_path}/ (report.html, report.md, results.json, 4 charts)")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == compare_report.report(found)


def test_html_shows_each_chart_in_its_section(tmp_path: Path) -> None:
    compare_report.write(comparison(SLOWER_HERE), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    shown = [attributes.get("alt") or tag for tag, attributes in page.tags if tag in ("h2", "img")]
    by_hidden_dim = ("Time of a step by hidden_dim, with batch_size 64", "Memory by hidden_dim, with batch_size 64")
    assert shown == [
        *(
            "h2",
            by_hidden_dim[0],
            "h2",
            "h2",
            "h2",
            by_hidden_dim[1],
            "h2",
            "val_accuracy by seed",
            "Training loss",
            "h2",
        ),
    ]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.attributes("img"))


def test_a_name_that_looks_like_markup_is_text(tmp_path: Path) -> None:
    config = {"network": {"class_path": "mine.<b>|x", "init_args": {}}}
    found = comparison([*SLOWER_HERE, failed_score("16-mixed", "<i>|\n# why")], config=config)
    compare_report.write(found, tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"network: <b>|x", "failed: <i>|\n# why"} <= set(page.texts)
    assert not {"b", "i"} & set(dict(page.tags))
    report = compare_report.report(found)
    assert "- network: &lt;b>|x\n" in report
    assert "| failed: &lt;i>\\| # why |" in report


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


def test_tables_have_a_column_for_each_axis() -> None:
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


def test_tables_of_many_settings_are_collapsed() -> None:
    cells = [cell for width in range(1, 22) for cell in speeds("32-true", "32-true", width, 64, 0.001)]
    report = compare_report.report(comparison(cells, own=sized(1, 64)))
    assert report.count("<details>") == 1
    assert "<summary>Times of all settings, 21 rows</summary>" in report
