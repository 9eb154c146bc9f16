"""The report of a profile, from a literal record."""

from dataclasses import replace
from pathlib import Path

import pytest

from mnist_amp.measuring.profile_records import (
    GradientSizes,
    Kernel,
    Layer,
    Operation,
    Profile,
    ProfileResults,
    Spread,
    StepTimes,
)
from mnist_amp.measuring.profile_report import PARTS, markdown, percentages, terminal, write
from tests.measuring.records import MEMORY, WORK
from tests.reporting.test_document import Page


def spread(median: float, share: float) -> Spread:
    """Return times with a median in microseconds."""
    mean, low, high = 1.25 * median, 0.5 * median, 2 * median
    return Spread(mean / 1e6, median / 1e6, low / 1e6, high / 1e6, nanoseconds=0, share=share)


PROFILE = Profile(
    precision="16-mixed",
    optimizer="Adam",
    fused=True,
    steps=1_000,
    warmup=20,
    times=StepTimes(
        step=spread(1_200.0, 1.0),
        unmarked_step=spread(1_000.0, 1.0),
        marks_cost=1.2,
        parts={
            "forward": spread(400.0, 1 / 3),
            "unscale": spread(0.04, 0.00004),
            "the loop itself": spread(800.0, 2 / 3 - 0.00004),
        },
    ),
    work=WORK,
    flops=39_272_448,
    peak_flops=1e14,
    memory=MEMORY,
    non_finite=None,
    layers=[Layer("fc1", "Linear", weight="float32", input="float32", output="float16")],
    operations=[
        Operation("waiting for data", "div_", inputs="float32", output="float32", count=1),
        Operation("forward", "addmm", inputs="float16", output="float16", count=2),
        Operation("the loop itself", "argmax", inputs="float16", output="int64", count=1),
    ],
    kernels=[
        Kernel("ampere_sgemm_64x64", share=0.75, tensor_cores=False),
        Kernel("nvjet_" + 100 * "t", share=0.25, tensor_cores=True),
    ],
    gradients=GradientSizes(
        steps=20, exponents={-20: 1_000, -3: 500}, zeros=200, flushed_by_fp16=0.0123, subnormal_in_fp16=0.5
    ),
)
RESULTS = ProfileResults(
    command="mnist-amp profile --trainer.precision=16-mixed",
    date="2026-01-02T03:04:05+00:00",
    device="NVIDIA H200",
    versions={"mnist-amp": "0.1.0", "torch": "2.15.0"},
    requested_precision="16-mixed",
    profile=PROFILE,
    numerics=None,
    settings={
        "network": {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": 128}},
        "data": {"batch_size": 64},
    },
)

REPORT = """\
# Where the time of a training step goes

Measured on 2026-01-02T03:04:05+00:00 by `mnist-amp profile --trainer.precision=16-mixed`

```mermaid
pie showData title A step of 1,500.0 µs, in percent
    "forward" : 33.3
    "the loop itself" : 66.7
```

| part | share | median µs | mean µs | 10% to 90% of steps, µs | what it is |
|---|---|---|---|---|---|
| forward | 33.3% | 400.0 | 500.0 | 200.0 to 800.0 | the module's forward, with autocast's casts |
| unscale | 0.0% | 0.0 | 0.1 | 0.0 to 0.1 | checking the gradients for inf and NaN; \
the fused optimizer unscales them in its own kernel |
| the loop itself | 66.7% | 800.0 | 1,000.0 | 400.0 to 1,600.0 | the rest: Lightning's loop and hooks, \
entering autocast, training metrics, schedules |
| step | 100.0% | 1,200.0 | 1,500.0 | 600.0 to 2,400.0 |  |

The times are those of the CUDA stream, and include its waits for the host. The marks make the median step 1.20 \
times as long (1,200.0 µs; 1,000.0 µs without). Shares are of the mean, so they add up to the step.

## Work of a step

- Of a 16-mixed step, matrix products are 50%, the optimizer is 10%, other operations are 10%, overhead is 20% and \
waiting for data is 10%.
- Its products are 0.0393 GFLOP, done at 39.3 GFLOP/s: 0.0% of the 100,000 GFLOP/s that large products reach on this \
device in this precision.

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

Recognised by their names; 25.0% of the kernels' time was spent in those that did.

| kernel | share | tensor cores |
|---|---|---|
| `ampere_sgemm_64x64` | 75.0% | no |
| `nvjet_tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt` | 25.0% | yes |

## How large the gradients are

1,700 gradient values in 20 optimizer steps, unscaled: 200 are zero. Of the others, without loss scaling, fp16 would \
flush 1.23% to zero and hold 50.00% with fewer bits than usual.

## Measured on

- device: NVIDIA H200
- precision: 16-mixed
- setting: SimpleNN (hidden_dim 128), batch_size 64, Adam
- steps: 1,000, after 20 warm-up steps
- versions: mnist-amp 0.1.0, torch 2.15.0

## Charts

These files are beside this report; `report.html` holds them all in one file.

![Gradients by magnitude, against the ranges of fp16 and bfloat16](gradients.png)
"""

TERMINAL = """
part               share   median µs  10% to 90% of steps, µs   (shares are of the mean)
forward            33.3%       400.0  200.0 to 800.0
unscale             0.0%         0.0  0.0 to 0.1
the loop itself    66.7%       800.0  400.0 to 1,600.0
step              100.0%     1,200.0  600.0 to 2,400.0

device     NVIDIA H200
precision  16-mixed
setting    SimpleNN (hidden_dim 128), batch_size 64, Adam
steps      1,000, after 20 warm-up steps
marks      make the median step 1.20 times as long (1,200.0 µs; 1,000.0 µs without)
work       waiting 10%, products 50%, optimizer 10%, others 10%, overhead 20%
files      logs/version_0/ (report.html, report.md, results.json, 2 charts)"""


def test_report() -> None:
    assert markdown(RESULTS) == REPORT


def test_report_of_a_cpu() -> None:
    profile = replace(PROFILE, kernels=None, fused=False, precision="bf16-mixed")
    report = markdown(replace(RESULTS, profile=profile))
    assert "The times are the host's. The marks make" in report
    assert "tensor cores" not in report
    assert "| unscaling the gradients and checking them for inf and NaN |" in report
    assert "- precision: bf16-mixed (requested: 16-mixed)\n" in report


def test_terminal() -> None:
    assert terminal(RESULTS, "logs/version_0") == TERMINAL
    assert terminal(RESULTS, None) == TERMINAL.rpartition("\n")[0]


def test_the_terminal_shows_all_parts_on_one_screen() -> None:
    parts = {name: spread(12_345.6, 1 / len(PARTS)) for name in PARTS}
    versions = dict.fromkeys(
        ("mnist-amp", "python", "torch", "torchvision", "lightning", "torchmetrics"), "2.15.0+cu130"
    )
    arguments = {f"an_argument_{index}": index for index in range(30)}
    found = replace(
        RESULTS,
        profile=replace(PROFILE, times=replace(PROFILE.times, parts=parts)),
        versions=versions,
        settings={"model": {"class_path": "mine.MyModule", "init_args": arguments}},
    )
    lines = terminal(found, "lightning_logs/profile/version_0").splitlines()
    assert len(lines) <= 23  # and the prompt
    assert max(map(len, lines)) <= 100


def test_files(tmp_path: Path) -> None:
    write(RESULTS, tmp_path)
    files = ["gradients.png", "profile.png", "report.html", "report.md", "results.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == REPORT
    assert ProfileResults.load(tmp_path / "results.json") == RESULTS


def test_html_has_the_charts_and_escapes_names(tmp_path: Path) -> None:
    layer = Layer("<b>", "My<i>", "float32", "float32", "float32")
    write(replace(RESULTS, profile=replace(PROFILE, layers=[layer])), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [image["alt"] for image in page.attributes("img")] == [
        "A step of 1,500.0 µs, in percent",
        "Gradients by magnitude, against the ranges of fp16 and bfloat16",
    ]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.attributes("img"))
    assert {"<b>", "My<i>"} <= set(page.texts)
    assert not {"b", "i", "a", "script", "link"} & set(dict(page.tags))


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
