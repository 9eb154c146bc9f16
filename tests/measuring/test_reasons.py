"""The reasons for the speed of a precision, from literal records."""

from dataclasses import replace
from typing import Any

import pytest

from mnist_amp.measuring.compare_records import Setting
from mnist_amp.measuring.compare_rows import Row
from mnist_amp.measuring.profile_records import Profile
from mnist_amp.measuring.reasons import reasons
from tests.measuring.records import PROFILE, WORK


def profile(work: dict[str, float], **more: Any) -> Profile:
    return replace(PROFILE, work={**dict.fromkeys(WORK, 0.0), **work}, **more)


def row(precision: str, seconds: float, found: Profile | None, waiting: float = 0.0) -> Row:
    return Row(precision, precision, Setting.of({}), [seconds], [0.001 / seconds], waiting * seconds, found, None)


HALF = profile({"matrix products": 0.9, "overhead": 0.1}, peak_flops=8e11)


def test_waiting_for_data_is_the_only_reason() -> None:
    found = reasons(row("32-true", 0.1, PROFILE, waiting=0.97), row("bf16-mixed", 0.1, PROFILE))
    assert found == [
        "97% of a 32-true step is waiting for your DataLoader: no precision helps. Prepare the data once, or "
        "use idle cores for more workers (num_workers)."
    ]
    (less,) = reasons(row("32-true", 0.1, PROFILE, waiting=0.5), row("bf16-mixed", 0.1, PROFILE))
    assert less.startswith("50% of a 32-true step is waiting for your DataLoader: a precision helps little.")


def test_few_products_and_much_overhead() -> None:
    full = profile({"matrix products": 0.08, "other operations": 0.42, "overhead": 0.5})
    assert reasons(row("32-true", 0.001, full), row("bf16-mixed", 0.001, HALF)) == [
        "Of a single 32-true step, matrix products are 8%, other operations are 42% and overhead is 50%.",
        "The products are 8% of the step, and half precision speeds up mostly these: without them, the step would be 1.09 times as fast.",
        "Large matrix products are 4.0 times as fast in bf16-mixed as in 32-true on this device (800 and 200 GFLOP/s); of these peaks, a step reaches 12% of that of bf16-mixed and 50% of that of 32-true.",
        "50% of the step is overhead (Python, hooks, launches), which no precision changes: larger batches help more.",
    ]


def test_casts_and_a_device_that_emulates() -> None:
    full = profile({"matrix products": 0.9, "optimizer": 0.1})
    half = profile({"matrix products": 0.88, "casts": 0.12}, peak_flops=1e11, flops=1_000_000)
    assert reasons(row("32-true", 0.001, full), row("bf16-mixed", 0.002, half)) == [
        "Of a single 32-true step, matrix products are 90% and the optimizer is 10%.",
        "Large matrix products are 0.50 times as fast in bf16-mixed as in 32-true on this device (100 and 200 GFLOP/s), "
        "so little can be gained by bf16-mixed.",
        "Casts are 12% of the bf16-mixed step.",
    ]


@pytest.mark.parametrize("missing", ["32-true", "bf16-mixed"])
def test_without_a_profile_no_reason_is_known(missing: str) -> None:
    full, half = (row(name, 0.001, None if name == missing else HALF) for name in ("32-true", "bf16-mixed"))
    assert reasons(full, half) == []
