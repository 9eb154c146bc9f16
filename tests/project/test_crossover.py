"""The map of the benchmark over networks and batch sizes, from literal speeds."""

import crossover
from mnist_amp.measuring.compare_records import Setting
from mnist_amp.measuring.compare_rows import Row


def row(network: str, batch_size: int, precision: str, speeds: list[float]) -> Row:
    setting = Setting.of({"network": network, "data.batch_size": batch_size})
    return Row(precision, precision, setting, [0.01] * len(speeds), speeds, 0.0, None, None)


def test_the_map() -> None:
    """A speed is bold above noise, also where it is printed as the same number; a failed one is a dash."""
    measured = [
        row("SimpleNN", 16, "32-true", [1.0, 1.0]),
        row("SimpleNN", 16, "bf16-mixed", [0.5, 0.6]),
        row("SimpleNN", 1024, "bf16-mixed", [1.0, 1.01]),
        row("CNN", 16, "bf16-mixed", []),
        row("CNN", 1024, "bf16-mixed", [1.5, 1.6, 1.4]),
    ]
    record = {"device": "a CPU", "bfloat16": False, "versions": {"torch": "2.15.0"}, "date": "2026-11-26"}
    record |= {"command": "python x", "speeds": crossover.speeds(measured, "32-true")}
    assert crossover.table(record) == (
        "Speed of bf16-mixed (32-true = 1), bold where it is faster:\n\n"
        "| network | batch 16 | batch 1,024 |\n"
        "|---|---|---|\n"
        "| SimpleNN | 0.55 | 1.00 |\n"
        "| CNN | - | **1.50** |\n\n"
        "Medians of 3 rounds on: a CPU, without instructions for bfloat16, torch 2.15.0, 2026-11-26.\n"
        "`python x`\n"
    )
