from typing import Any

import pytest

from mnist_amp.measuring.profile_report import markdown, percentages, terminal


def figures(median: float, share: float) -> dict[str, Any]:
    """Return figures with a median of so many microseconds."""
    spread = {"median": median, "mean": 1.25 * median, "p10": 0.5 * median, "p90": 2 * median}
    return {**{name: value / 1e6 for name, value in spread.items()}, "share": share, "nanoseconds": 0}


RECORD: dict[str, Any] = {
    "command": "mnist-amp profile --trainer.precision=16-mixed",
    "date": "2026-01-02T03:04:05+00:00",
    "device": "NVIDIA H200",
    "versions": {"mnist-amp": "0.1.0", "torch": "2.15.0"},
    "precision": "16-mixed",
    "requested_precision": "16-mixed",
    "optimizer": "Adam",
    "fused": True,
    "steps": 1_000,
    "warmup": 20,
    "settings": {"model": {"hidden_dim": 128}, "data": {"batch_size": 64}},
    "step": figures(1_200.0, 1.0),
    "unmarked_step": figures(1_000.0, 1.0),
    "marks_cost": 1.2,
    "parts": [
        {"part": "forward", **figures(400.0, 1 / 3)},
        {"part": "unscale", **figures(0.04, 0.00004)},
        {"part": "the loop itself", **figures(800.0, 2 / 3 - 0.00004)},
    ],
    "layers": [{"layer": "fc1", "kind": "Linear", "weight": "float32", "input": "float32", "output": "float16"}],
    "operations": [
        {"part": "waiting for data", "name": "div_", "inputs": "float32", "output": "float32", "count": 1},
        {"part": "forward", "name": "addmm", "inputs": "float16", "output": "float16", "count": 2},
        {"part": "the loop itself", "name": "argmax", "inputs": "float16", "output": "int64", "count": 1},
    ],
    "kernels": [
        {"kernel": "ampere_sgemm_64x64", "share": 0.75, "tensor_cores": False},
        {"kernel": "nvjet_" + 100 * "t", "share": 0.25, "tensor_cores": True},
    ],
    "gradients": {
        "steps": 20,
        "exponents": {-20: 1_000, -3: 500},
        "zeros": 200,
        "flushed_by_fp16": 0.0123,
        "subnormal_in_fp16": 0.5,
    },
}

REPORT = """\
# Where the time of a training step goes

Made on 2026-01-02T03:04:05+00:00 by `mnist-amp profile --trainer.precision=16-mixed`

```mermaid
pie showData title A step of 1,500.0 µs, in percent
    "forward" : 33.3
    "the loop itself" : 66.7
```

| part | share | median µs | mean µs | 10% to 90% of steps, µs | what it is |
|---|---|---|---|---|---|
| forward | 33.3% | 400.0 | 500.0 | 200.0 to 800.0 | the network, with autocast's casts |
| unscale | 0.0% | 0.0 | 0.1 | 0.0 to 0.1 | looking for inf and NaN in the gradients; \
the fused optimizer unscales them in its own kernel |
| the loop itself | 66.7% | 800.0 | 1,000.0 | 400.0 to 1,600.0 | all else: Lightning's loop and hooks, \
autocast's entry, training metrics, schedules |
| step | 100.0% | 1,200.0 | 1,500.0 | 600.0 to 2,400.0 |  |

The time is that of the CUDA stream, which counts when it waits for the host, too. The marks make the median step 1.20 \
times as long (1,200.0 µs; 1,000.0 µs without). Shares are of the mean, so they add up to the step.

## Which precision the layers ran in

| layer | kind | weight | input | output |
|---|---|---|---|---|
| fc1 | Linear | float32 | float32 | float16 |

## Which precision the operations ran in

Recorded from one optimizer step, as torch dispatched it; `_to_copy` is a cast.

| part | name | inputs | output | count |
|---|---|---|---|---|
| forward | `addmm` | float16 | float16 | 2 |

## Which kernels used tensor cores

Told by their names; 25.0% of the kernels' time was spent in those that did.

| kernel | share | tensor cores |
|---|---|---|
| `ampere_sgemm_64x64` | 75.0% | no |
| `nvjet_tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt` | 25.0% | yes |

## How large the gradients are

Of 1,700 gradient values in 20 optimizer steps, unscaled, 200 are zero. Of the others, fp16 would flush 1.23% to zero \
and hold 50.00% with fewer bits than usual, if they were not scaled.

![Gradients by magnitude, against the ranges of fp16 and bfloat16](gradients.png)

## Measured on

- device: NVIDIA H200
- precision: 16-mixed
- setting: hidden_dim 128, batch_size 64, Adam
- steps: 1,000, after 20 to warm up
- versions: mnist-amp 0.1.0, torch 2.15.0
"""

TERMINAL = """
part               share   median µs  10% to 90% of steps, µs   (shares are of the mean)
forward            33.3%       400.0  200.0 to 800.0
unscale             0.0%         0.0  0.0 to 0.1
the loop itself    66.7%       800.0  400.0 to 1,600.0
step              100.0%     1,200.0  600.0 to 2,400.0

device     NVIDIA H200
precision  16-mixed
setting    hidden_dim 128, batch_size 64, Adam
steps      1,000, after 20 to warm up
versions   mnist-amp 0.1.0, torch 2.15.0
marks      make the median step 1.20 times as long (1,200.0 µs; 1,000.0 µs without)
files      logs/version_0/ (report.md, profile.png, gradients.png, results.json)"""


def test_report() -> None:
    assert markdown(RECORD) == REPORT


def test_report_of_a_cpu() -> None:
    report = markdown({**RECORD, "kernels": None, "fused": False, "precision": "bf16-mixed"})
    assert "The time is the host's. The marks make" in report
    assert "tensor cores" not in report
    assert "| unscaling the gradients, and looking for inf and NaN in them |" in report
    assert "- precision: bf16-mixed (asked for: 16-mixed)\n" in report


def test_terminal() -> None:
    assert terminal(RECORD, "logs/version_0") == TERMINAL


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([1.0], [100.0]),
        ([1 / 3, 1 / 3, 1 / 3], [33.4, 33.3, 33.3]),
        ([0.9996, 0.0004], [100.0, 0.0]),
        ([0.12345, 0.45678, 0.41977], [12.3, 45.7, 42.0]),
    ],
)
def test_percentages_add_up(shares: list[float], expected: list[float]) -> None:
    assert percentages(shares) == expected
