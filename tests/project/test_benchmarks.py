"""The tables of the benchmarks, from literal records; their measurements are not tested."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import accuracy
import contenders
import crossover
import exports
import machine
import own_digits
import own_modules
import precision
import readme
import scale
import speed
import startup
import targets
from mnist_amp.data import mnist
from mnist_amp.images.files import read_image
from mnist_amp.images.mnist_form import mnist_form

RESULTS = Path(__file__).parents[2] / "docs" / "results"
VERSIONS = {"torch": "2.15.0", "lightning": "2.6.6"}


def case(precision: str = "32-true", **seconds: list[float]) -> dict[str, Any]:
    """Return a record of a case, with these times of its contenders."""
    kept = {"process_seconds": 8.0, "peak_bytes": 1e9, "peak_device_bytes": None, "accuracy": 0.9731}
    return {
        **{"hidden_dim": 128, "batch_size": 64, "precision": precision, "epochs": 2, "device": "a CPU"},
        **{"versions": VERSIONS, "date": "2026-11-24", "command": "python benchmarks/speed.py --cases fp32"},
        "runs": [
            {"contender": name, "seed": seed, "seconds": value, **kept}
            for name, values in seconds.items()
            for seed, value in enumerate(values)
        ],
    }


def test_table_of_speed() -> None:
    record = case(guide=[30.0, 32.0, 31.0], fit=[4.0, 3.1, 3.0], bound=[2.0, 2.5, 2.4])
    assert (
        speed.table(record)
        == """hidden_dim 128, batch 64, 32-true, 2 epochs of 60,000 images:

| | training, s | min to max | µs per step | speed (guide = 1) | time (lower bound = 1) \
| complete process, s | peak memory | test accuracy |
|---|---|---|---|---|---|---|---|---|
| the guide's listing | 31.00 | 30.00 to 32.00 | 16,525 | 1.0 | 12.92 | 8.0 | 1,000 MB | 97.31% |
| `mnist-amp fit`, with logs, checkpoints and progress bar | 3.10 | 3.00 to 4.00 | 1,652 | 10.0 \
| 1.29 | 8.0 | 1,000 MB | 97.31% |
| hand-written loop (lower bound) | 2.40 | 2.00 to 2.50 | 1,279 | 12.9 | 1.00 | 8.0 | 1,000 MB | 97.31% |

Medians of 3 interleaved rounds on: a CPU, torch 2.15.0, lightning 2.6.6, 2026-11-24.
`python benchmarks/speed.py --cases fp32`
"""
    )


def test_table_of_the_ladder_names_each_difference() -> None:
    times = [1.0]
    record = case(lightning=times, memory=times, quiet=times, single=times, fit=times, fast=times, bound=times)
    assert [row.split(" | ")[0] for row in speed.table(record).splitlines() if row.endswith("97.31% |")] == [
        "| plain Lightning: `DataLoader`, transforms, `self.log` in each step",
        "| plain Lightning, with batches from memory",
        "| the same, without logs in a step and without a progress bar",
        "| `mnist-amp fit --model.steps_per_execution 1`",
        "| `mnist-amp fit`, with logs, checkpoints and progress bar",
        "| `mnist-amp fit --config configs/fast.yaml`: 50 steps per execution",
        "| hand-written loop (lower bound)",
    ]


def test_targets_of_two_machines_stand_side_by_side() -> None:
    cpu = {
        "fp32": case(guide=[30.0, 30.0, 99.0], fit=[3.0], fast=[2.5], bound=[2.4], compile=[2.2], compiled=[2.0]),
        "mixed": case("bf16-mixed", guide=[15.0], fit=[3.0], fast=[3.0], bound=[2.5]),
        "wide": case("bf16-mixed", fit=[22.0], fast=[21.0], bound=[20.0]),
    }
    process = {"`mnist-amp --help`": [0.1, 0.2, 0.1], '`python -c "import torch"`': [2.0, 2.5, 2.6]}
    process['`python -c "import lightning.pytorch"`'] = [4.0]
    start = {"seconds": process, "whole": {"fit": [5.0]}, "bound": [0.8], "device": "a CPU", "date": "2026-11-25"}
    runs = [
        {"network": "CNN", "precision": "32-true", "fit": {"seconds": seconds}, "bare": {"seconds": 10.0}}
        for seconds in (10.0, 11.0, 12.0)
    ]
    networks = {"runs": runs, "device": "a CPU", "date": "2026-11-25"}
    gpu = {"fp32": {**case(guide=[200.0], fit=[1.6], fast=[2.5], bound=[1.28]), "device": "NVIDIA H200"}}
    machines: dict[str, Any] = {
        "cpu": {"speed": cpu, "startup": start, "bigger-networks": networks},
        "nvidia-h200": {"speed": gpu},
    }
    assert (
        targets.table(machines)
        == """|  | target | cpu | nvidia-h200 |
|---|---|---|---|
| `fit` vs. the guide's listing | 9 times as fast | 10.00 (32-true); 5.00 (bf16-mixed), missed | - |
| `fit` vs. the lower bound | at most 1.35 times its time | 1.25 (32-true); 1.20 (bf16-mixed) | - |
| `fast.yaml` vs. the lower bound | at most 1.1 times its time | 1.04 (32-true); 1.20 (bf16-mixed), missed | - |
| `fit --compile`, compiled before, vs. the compiled lower bound | at most 1.25 times its time | 1.10 (32-true) | - |
| hidden_dim 2048, batch 512: `fit` vs. the lower bound | at most 1.15 times its time | 1.10 (bf16-mixed) | - |
| CNN, ViT, ResNet-18: `fit` vs. a bare loop | at most 1.05 times its time | 1.10 (CNN, 32-true), missed | - |
| `fit` of an epoch, complete process, vs. importing Lightning, and the bound | at most 1.15 times its time | 1.04 | - |
| `mnist-amp --help` vs. `import torch` | at most 1.5 times its time | 0.04 | - |
| on a GPU: `fit` vs. the guide's listing | 100 times as fast | - | 125.00 (32-true) |
| on a GPU: `fit` vs. the captured loop | at most 1.5 times its time | - | 1.25 (32-true) |
| on a GPU: `fast.yaml` vs. the guide's listing | 100 times as fast | - | 80.00 (32-true), missed |
| on a GPU: `fast.yaml` vs. the captured loop | at most 1.5 times its time | - | 1.95 (32-true), missed |

Ratios of medians, from the tables of the benchmarks, on:

- cpu: a CPU, 2026-11-24, 2026-11-25
- nvidia-h200: NVIDIA H200, 2026-11-24
"""
    )


@pytest.mark.parametrize(("contender", "imports"), [("guide", False), ("bound", False), ("quiet", True)])
def test_only_contenders_that_use_lightning_import_it(contender: str, imports: bool, tmp_path: Path) -> None:
    mnist.prepare(tmp_path)
    files = (f"--data_dir={tmp_path}", f"--weights={tmp_path / 'model.pth'}")
    program = (sys.executable, contenders.__file__, contender, "--epochs=1", "--batch_size=8192", "--device=cpu")
    printed = subprocess.run([*program, *files], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed.splitlines()[-1])["imports_lightning"] is imports


def test_an_epoch_of_the_lower_bound_has_each_image_once() -> None:
    images = torch.arange(700).remainder(256).to(torch.uint8).reshape(700, 1, 1).expand(700, 2, 2)
    found = list(contenders.batches(images, torch.arange(700), batch_size=48))
    assert [len(labels) for _, labels in found] == [*[48] * 14, 28]
    order = torch.cat([labels for _, labels in found])
    assert order.sort().values.tolist() == list(range(700))
    expected = (images[order].float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(torch.cat([batch for batch, _ in found]), expected)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("execution  50 optimizer steps per execution, captured as CUDA graphs\r\n", None),
        (
            "mnist-amp: warning: the steps are not captured as a CUDA graph, but run one after the other because so\n",
            "mnist-amp: warning: the steps are not captured as a CUDA graph, but run one after the other because so",
        ),
        (
            "execution  50 optimizer steps per execution, one after the other because Spy has a hook\r\naccuracy\n",
            "execution  50 optimizer steps per execution, one after the other because Spy has a hook",
        ),
    ],
)
def test_steps_that_were_not_captured_are_noticed(output: str, said: str | None) -> None:
    assert speed.uncaptured(output) == said


def test_the_output_of_a_failed_program_is_kept(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; print('here'); sys.exit('why it failed')"]
    output, status, _ = speed.in_pipe(program, tmp_path)
    assert (sorted(output.splitlines()), status) == (["here", "why it failed"], 1)


def test_imports_are_summed_by_package() -> None:
    report = "import time: self [us] | cumulative | imported package\n" + "".join(
        f"import time: {microseconds:9d} | {10**6:10d} | {'  ' * depth}{name}\n"
        for depth, (name, microseconds) in enumerate(
            {
                **{"torch": 3_000_000, "torch.nn": 500_000, "lightning.pytorch": 250_000, "numpy": 90_000},
                **{"json.decoder": 1_000, "a": 80_000, "b": 70_000, "c": 60_000, "_torch": 2_000},
            }.items()
        )
    )
    times = startup.self_times(report)
    assert list(times) == ["torch", "lightning", "numpy", "a", "b", "c", "the rest"]
    assert list(times.values()) == pytest.approx([3.5, 0.25, 0.09, 0.08, 0.07, 0.06, 0.003])
    assert (
        startup.imports_table(times)
        == """
| `python -X importtime -c "import mnist_amp.cli.lightning_cli"`, by package | its own seconds |
|---|---|
| `torch` | 3.50 |
| `lightning` | 0.25 |
| `numpy` | 0.09 |
| `a` | 0.08 |
| `b` | 0.07 |
| `c` | 0.06 |
| the rest | 0.00 |
| all | 4.05 |
"""
    )


def test_table_of_complete_processes() -> None:
    record = {
        "seconds": {startup.LIGHTNING: [4.0, 4.5, 4.4]},
        "bound": [0.6, 0.7, 0.5],
        "whole": {"fit": [5.0, 4.0, 6.0], "test": [4.0, 3.0, 1.0]},
    }
    assert (
        startup.whole_table(record)
        == """
| complete process | seconds | ratio |
|---|---|---|
| `python -c "import lightning.pytorch"` and an epoch of the hand-written loop | 5.00 | 1.00 |
| `mnist-amp fit` of one epoch | 5.00 | 1.00 |
| `make fit` of one epoch, the second time: this and `mnist-amp test` | 7.00 | 1.40 |
"""
    )
    assert startup.BOUND in contenders.CONTENDERS


def test_documents_show_the_saved_results(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "one.md").write_text("new \\1\n")
    text = (
        "before\n<!-- docs/results/one.md -->\n{}<!-- end -->\nbetween <!-- docs/results/one.md -->\n{}<!-- end -->\n"
    )
    for folder in (tmp_path, tmp_path / "docs", tmp_path / "docs" / "zh"):
        assert readme.filled(text.format("old\n", ""), tmp_path, folder) == text.format("new \\1\n", "new \\1\n")
    (tmp_path / "README.md").write_text("")
    assert readme.left_out(tmp_path) == ["docs/results/one.md"]
    (tmp_path / "docs" / "other.md").write_text(text)
    assert readme.left_out(tmp_path) == []


@pytest.mark.parametrize(
    ("folder", "link"), [("", "docs/results/a.png"), ("docs", "results/a.png"), ("docs/zh", "../results/a.png")]
)
def test_charts_of_results_are_linked_from_each_folder(tmp_path: Path, folder: str, link: str) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "one.md").write_text("![A chart](results/a.png)\n")
    text = "<!-- docs/results/one.md -->\n{}<!-- end -->\n"
    assert readme.filled(text.format(""), tmp_path, tmp_path / folder) == text.format(f"![A chart]({link})\n")


def test_documents_are_those_of_both_languages(tmp_path: Path) -> None:
    names = ["README.md", "README.zh-CN.md", "docs/index.md", "docs/zh/index.md"]
    (tmp_path / "docs" / "zh").mkdir(parents=True)
    for name in [*names, "docs/results.json"]:
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in readme.documents(tmp_path)] == names


def test_tables_are_those_of_the_saved_results(tmp_path: Path) -> None:
    for record in RESULTS.glob("*.json"):
        (tmp_path / record.name).write_bytes(record.read_bytes())
        saved = json.loads(record.read_text(encoding="utf-8"))
        if record.name.startswith("speed-"):
            assert record.with_suffix(".md").read_text(encoding="utf-8") == "\n".join(map(speed.table, saved.values()))
    targets.write(tmp_path)
    assert (tmp_path / "targets.md").read_text() == (RESULTS / "targets.md").read_text(encoding="utf-8")
    for name, table in (
        ("startup-cpu-bf16", startup.table),
        ("scale-cpu", scale.table),
        ("own-digits", own_digits.table),
        ("exports-cpu-bf16", exports.table),
        ("accuracy", accuracy.table),
    ):
        saved = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        assert table(saved) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_ratios_of_half_precision() -> None:
    runs = [
        {"hidden_dim": width, "batch_size": batch, "precision": way, "round": turn, "bare": bare, "compare": compared}
        for width, batch in precision.SETTINGS
        for turn in range(3)
        for way, bare, compared in ((precision.BOTH[0], 1.0, 1.2), (precision.BOTH[1], 2.0, 2.0 + turn / 10))
    ]
    record = {
        "device": "CPU",
        "versions": {"torch": "2.15.0"},
        "date": "2026-11-25",
        "command": "python x",
        "runs": runs,
    }
    assert precision.ratio_table(record) == (
        f"Speed of {machine.HALF} (float32 = 1), measured in two ways:\n\n"
        "| hidden_dim | batch_size | hand-written loop | `mnist-amp compare` | difference |\n"
        "|---|---|---|---|---|\n"
        "| 128 | 64 | 0.50 | 0.57 | +14% |\n"
        "| 2048 | 512 | 0.50 | 0.57 | +14% |\n\n"
        "Medians of 3 interleaved rounds on: CPU, torch 2.15.0, 2026-11-25.\n`python x`\n"
    )


def test_the_kept_files_of_a_report_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    record = {"path": "/tmp/x/data", "date": "2026-11-25T01:02"}
    record["command"] = "mnist-amp compare --seeds=1 --trainer.default_root_dir=/tmp/x --data.data_dir=/tmp/x/data"
    (tmp_path / "results.json").write_text(json.dumps(record))
    (tmp_path / "time.png").write_bytes(b"\x89PNG")
    (tmp_path / "report.md").write_text("")
    precision.keep_files(tmp_path, tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["results.json", "time.png"]
    saved = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert saved == {**record, "path": "", "command": "mnist-amp compare --seeds=1"}


def test_tables_of_precision_are_those_of_the_saved_results(tmp_path: Path) -> None:
    names = [f"{name}-cpu-bf16.md" for name in ("compare", "inference", "operations", "profile", "verdict")]
    for folder in ("compare-cpu-bf16", "profile-cpu-bf16"):
        shutil.copytree(RESULTS / folder, tmp_path / folder)
    precision.write_tables(tmp_path, "cpu-bf16")
    assert sorted(path.name for path in tmp_path.glob("*.md")) == names
    for name in names:
        assert (tmp_path / name).read_text(encoding="utf-8") == (RESULTS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("ratio-cpu-bf16", precision.ratio_table),
        ("own-modules-cpu-bf16", own_modules.table),
        ("crossover-cpu-bf16", crossover.table),
    ],
)
def test_tables_of_ratios_are_those_of_the_saved_results(name: str, table: Callable[[dict[str, Any]], str]) -> None:
    saved = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert table(saved) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_table_of_exports() -> None:
    file = {"file": "model-float16.onnx", "bytes": 205163, "arithmetic": "float16", "differing_guesses": 0}
    file |= {"largest_difference": 0.00704, "allowed_difference": 0.1434, "versions": {"onnxruntime": "1.32.0"}}
    file |= {"allowed_guesses": None, "single_seconds": 0.0000104, "bulk_seconds": 0.0021, "bulk_images": 1000}
    int8 = {"file": "model-int8.onnx", "bytes": 107960, "arithmetic": "int8", "differing_guesses": 1038}
    int8 |= {"largest_difference": 1.33, "allowed_difference": None, "allowed_guesses": 2000}
    found = {
        **{"run": {"epochs": 5, "precision": "bf16-mixed"}, "largest_logit": 36.7},
        **{"accuracy": {"correct": 9705, "images": 10_000}},
    }
    network = {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": 128}}
    file |= {"network": network, "accuracy": {"correct": 9704, "images": 10_000}}
    found["files"] = [file, file | int8]
    record = {"export": found, "device": "a CPU", "versions": VERSIONS, "date": "2026-11-25"}
    assert (
        exports.table({**record, "command": "python benchmarks/exports.py"})
        == """| file | bytes | arithmetic | accuracy | other guesses | largest difference | allowed | 1 image, ms | \
1,000 images, ms |
|---|---|---|---|---|---|---|---|---|
| `model-float16.onnx` | 205,163 | float16 | 97.04% | 0 | 0.007 | 0.14 | 0.010 | 2.1 |
| `model-int8.onnx` | 107,960 | int8 | 97.04% | 1,038 | 1.3 | 2,000 guesses | 0.010 | 2.1 |

The checkpoint, SimpleNN(hidden_dim=128) after 5 epochs in bf16-mixed, is right on 97.05% of the 10,000 test images; \
its largest logit there is 36.7.

On: a CPU, torch 2.15.0, onnxruntime 1.32.0, 2026-11-25. `python benchmarks/exports.py`
"""
    )


def test_table_of_own_digits() -> None:
    record = {
        **{"images": 10_000, "plain": 0.9705, "test_accuracy": 0.9704, "precision": "bf16-mixed", "device": "a CPU"},
        **{"versions": VERSIONS, "date": "2026-11-25", "command": "python benchmarks/own_digits.py"},
        "variants": {"as PNG files": 0.9706, "in two colours": 0.97},
        "fonts": {"DejaVu Serif": own_digits.counted([(1, 8), (2, 2), (1, 8), (4, -1)])},
        "pens": {"4": own_digits.counted([(digit, digit) for digit in range(10)])},
    }
    assert (
        own_digits.table(record)
        == """10,000 test images; `mnist-amp test` of the run reports 97.04%:

| images | accuracy | difference in percentage points |
|---|---|---|
| 28 x 28, unchanged (`--preprocess none`) | 97.05% | +0.00 |
| as PNG files | 97.06% | +0.01 |
| in two colours | 97.00% | -0.05 |

| digits printed in sizes 24, 60, 180 | fonts | correct | wrong |
|---|---|---|---|
| DejaVu Serif | 4 | 1 of 4 | 1 as 8 (2 times), 4 as nothing |

| digits drawn with a pen | correct | wrong |
|---|---|---|
| 4% of the image wide | 10 of 10 | - |

One run of the default recipe (bf16-mixed), on: a CPU, torch 2.15.0, 2026-11-25. `python benchmarks/own_digits.py`
"""
    )


def test_digits_in_fonts_and_by_pens(tmp_path: Path) -> None:
    for folder, count in (
        (own_digits.lettered("DejaVu Sans", tmp_path / "font"), 120),
        (own_digits.drawn(8, tmp_path / "pen"), 10),
    ):
        files = sorted(folder.iterdir())
        assert len(files) == count
        forms = {mnist_form(read_image(file)).tobytes() for file in files}
        assert len(forms) == count  # no two have the same digit, face and size
        assert sorted({file.stem[-1] for file in files}) == list("0123456789")
