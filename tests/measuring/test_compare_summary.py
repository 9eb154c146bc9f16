"""The text that a comparison prints, from literal records."""

import itertools
from typing import Any

from mnist_amp.measuring.compare_records import Comparison, Failure, Measurement, Metric
from mnist_amp.measuring.compare_summary import summary
from tests.measuring.records import (
    CPU,
    SLOWER_HERE,
    comparison,
    failed_speed,
    profiled,
    scores,
    sized,
    speeds,
    speeds_at,
)

FILES = "lightning_logs/compare/version_0/ (report.html, report.md, results.json, 5 charts)"
PAIR = ["32-true", "bf16-mixed"]


def measured(widths: list[int], sizes: list[int], precisions: list[str], **changed: Any) -> Comparison:
    """Return a comparison with all findings: slower, emulated, of few products, with much overhead."""
    work = {"matrix products": 0.1, "casts": 0.1, "optimizer": 0.1, "other operations": 0.1, "overhead": 0.6}
    cells: list[Measurement] = []
    for width, size, precision in itertools.product(widths, sizes, precisions):
        seconds = 0.001 * width * size / 128 / 64 * (1 + (precision != "32-true"))
        cells += speeds(precision, precision, width, size, seconds, seconds, 1.1 * seconds)
        cells.append(profiled(precision, precision, sized(width, size), work=work))
    for precision in precisions:
        cells += scores(precision, precision, 0.9630, 0.9656, 0.9614)
    axes = {"network.hidden_dim": widths, "data.batch_size": sizes}
    return comparison(cells, **{"axes": axes, "precisions": precisions, "half_hardware": False, "seeds": 3, **changed})


def test_the_default_comparison_fits_one_screen() -> None:
    found = measured([128, 512, 2048], [64, 512], PAIR)
    assert (
        summary(found, FILES)
        == f"""
With hidden_dim 128 and batch_size 64 on {CPU}:
precision   ms per step  min to max  waiting, ms  speed (32-true = 1)  memory, MB  val_accuracy
32-true               1  1 to 1.1            0.1                 1.00        8.00  96.33% ± 0.21%
bf16-mixed            2  2 to 2.2            0.1                 0.50        8.00  96.33% ± 0.21%

hidden_dim  batch_size  32-true, ms  bf16-mixed, speed
       128         512            8               0.50
       512          64            4               0.50
       512         512           32               0.50
      2048          64           16               0.50
      2048         512          128               0.50

Use 32-true here: bf16-mixed is 0.50 times as fast as 32-true (0.50 to 0.50 in 3 rounds). This CPU
  has no instructions for bfloat16, so PyTorch emulates it.
Of a single 32-true step, matrix products are 10%, casts are 10%, the optimizer is 10%, other
  operations are 10% and overhead is 60%.
The products are 10% of the step, and half precision speeds up mostly these: without them, the step
  would be 1.11 times as fast.
Large matrix products are 1.00 times as fast in bf16-mixed as in 32-true on this device (200 and 200
  GFLOP/s), so little can be gained by bf16-mixed.
5 more sentences are in report.md.
files  {FILES}"""
    )


def check_size(text: str) -> None:
    lines = text.splitlines()
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 100


def test_all_usual_comparisons_fit_one_screen() -> None:
    check_size(summary(measured([128, 512, 2048], [64, 512], PAIR), FILES))
    gpu = ["32-true", "tf32", "bf16-mixed", "16-mixed", "transformer-engine"]
    printed = summary(measured([128, 512, 2048, 8192], [64, 512, 4096], gpu), FILES)
    check_size(printed)
    assert "\n6 more settings are in report.md.\n" in printed


def test_optional_columns_are_left_out_of_a_wide_table() -> None:
    metric = Metric("val_mean_average_precision_at_50", "max")
    cells = [
        *speeds("32-true", "32-true", 128, 64, 0.001),
        *speeds("16-mixed", "bf16-mixed", 128, 64, 0.002),
        *scores("32-true", "32-true", 0.5, 0.6),
    ]
    printed = summary(comparison(cells, metric=metric), FILES)
    check_size(printed)
    assert printed.splitlines()[2] == (
        "precision  ms per step  speed (32-true = 1)  memory, MB  val_mean_average_precision_at_50"
    )


def test_a_comparison_of_one_setting_has_one_table() -> None:
    printed = summary(comparison([*SLOWER_HERE[:6], *SLOWER_HERE[-4:]], axes={"data.batch_size": [64]}), FILES)
    assert printed.startswith(
        f"\nWith hidden_dim 128 and batch_size 64 on {CPU}:\n"
        "precision   ms per step  min to max  waiting, ms  speed (32-true = 1)  memory, MB  val_accuracy\n"
    )
    assert printed.count("ms") == 2
    assert printed.endswith(f"\nfiles  {FILES}")


def test_precisions_that_ran_as_another_one() -> None:
    cells = [*speeds("32-true", "32-true", 128, 64, 0.001), *speeds("16-mixed", "bf16-mixed", 128, 64, 0.002)]
    lines = summary(comparison(cells, precisions=["32-true", "16-mixed"]), FILES).splitlines()
    assert lines[2:5] == [
        "precision  ran as      ms per step  min to max  waiting, ms  speed (32-true = 1)  memory, MB",
        "32-true    32-true               1  1 to 1              0.1                 1.00  -",
        "16-mixed   bf16-mixed            2  2 to 2              0.1                 0.50  -",
    ]


def test_failures() -> None:
    own = speeds("32-true", "32-true", 128, 64, 0.001)
    too_large = Measurement(speeds_at(sized(512, 64), "32-true", "32-true", 1.0)[0].cell, Failure("why", True))
    printed = summary(comparison([*own, failed_speed("bf16-mixed", 128, "why"), too_large]), FILES)
    assert "\nbf16-mixed       failed  -                     -                    -  -\n" in printed
    assert "\n       512          64  out of memory\n" in printed
