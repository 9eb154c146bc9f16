"""The benchmarks of bigger networks and of large data: their programs at small sizes, and their tables."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import bigger_networks as networks
import large_data as large
from machine import MACHINE
from mnist_amp.data import mnist

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FACTS = {"device": "a CPU", "versions": {"torch": "2.15.0", "lightning": "2.6.6"}, "date": "2026-11-26"}


def contender(seconds: float, loss: float = 0.5) -> dict[str, float]:
    return {"seconds": seconds, "loss": loss}


def runs(network: str, precision: str, **seconds: list[float]) -> list[dict[str, Any]]:
    return [
        {"network": network, "precision": precision, "seed": seed, "steps": 100}
        | {name: contender(values[seed]) for name, values in seconds.items()}
        for seed in range(3)
    ]


def test_all_contenders_train(tmp_path: Path) -> None:
    mnist.prepare(tmp_path / "data")
    found = networks.measure("CNN", "bf16-mixed", 2, 0, tmp_path)
    assert list(found) == ["network", "precision", "seed", "steps", "bare", "fit", "channels_last"]
    losses = [found[name]["loss"] for name in ("bare", "fit", "channels_last")]
    assert all(1.5 < loss < 3.5 for loss in losses)  # of an untrained network, about ln 10
    assert losses[2] == pytest.approx(losses[0], rel=0.01)  # the same weights and images in another layout
    assert min(found[name]["seconds"] for name in ("bare", "fit", "channels_last")) > 0


def test_both_programs_train_on_the_same_colour_images(tmp_path: Path) -> None:
    found = networks.bare("ResNet-18", "32-true", 1, 0, tmp_path)  # which asserts that it does not import Lightning
    assert 1.5 < found["loss"] < 4
    assert networks.steps_of_epoch("ResNet-18") == 157


def refusal(**losses: float) -> object:
    run: dict[str, Any] = {"network": "CNN", "precision": "32-true"}
    with pytest.raises(SystemExit) as exit_info:
        networks.check_losses([run | {name: contender(1.0, loss) for name, loss in losses.items()}])
    return exit_info.value.code


def test_losses_are_checked() -> None:
    message = "CNN in 32-true: the mean losses differ too much: {'bare': 0.5, 'fit': 0.65}."
    assert refusal(bare=0.5, fit=0.65) == message
    message = "CNN in 32-true does not train: the mean losses are {'bare': 2.4, 'fit': 2.4}."
    assert refusal(bare=2.4, fit=2.4) == message
    networks.check_losses(runs("CNN", "32-true", bare=[1.0] * 3, fit=[1.0] * 3))


def test_table_of_networks() -> None:
    found = runs("CNN", "32-true", bare=[1.0, 2.0, 4.0], fit=[1.05, 2.04, 4.4], channels_last=[0.5, 1.2, 2.4])
    found += runs("ViT", "bf16-mixed", bare=[2.0, 2.0, 2.0], fit=[2.0, 2.0, 2.2])
    assert networks.table({**FACTS, "command": "python x", "runs": found}) == (
        "| network | precision | steps | bare loop, ms per step | `mnist-amp fit` (bare loop = 1) "
        "| bare loop with channels_last | mean loss: bare loop, `fit` |\n"
        "|---|---|---|---|---|---|---|\n"
        "| CNN | 32-true | 100 | 20.0 | 1.05 (1.02 to 1.10) | 0.60 (0.50 to 0.60) | 0.500, 0.500 |\n"
        "| ViT | bf16-mixed | 100 | 20.0 | 1.00 (1.00 to 1.10) | - | 0.500, 0.500 |\n\n"
        "Time of training in batches of 64: median (minimum to maximum) of the ratios in 3 interleaved rounds on: "
        "a CPU, torch 2.15.0, lightning 2.6.6, 2026-11-26.\n"
        "`python x`\n"
    )


def test_results_of_networks_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(network: str, precision: str, steps: int, seed: int, folder: Path) -> dict[str, Any]:
        found = {"network": network, "precision": precision, "seed": seed, "steps": steps}
        return {**found, "bare": contender(1.0), "fit": contender(1.01)}

    monkeypatch.setattr(networks, "measure", measured)
    monkeypatch.setattr(sys, "argv", ["x", "--networks", "ViT", "CNN", "--rounds=2", f"--results={tmp_path}"])
    networks.main()
    record = json.loads((tmp_path / f"bigger-networks-{MACHINE}.json").read_text())
    assert [(run["network"], run["precision"], run["steps"]) for run in record["runs"]] == 2 * [
        *(("ViT", "32-true", 938), ("ViT", "bf16-mixed", 938)),
        *(("CNN", "32-true", 938), ("CNN", "bf16-mixed", 938)),
    ]
    assert (tmp_path / f"bigger-networks-{MACHINE}.md").read_text() == networks.table(record)


@pytest.mark.parametrize("kind", list(large.KINDS))
def test_large_data_of_a_small_size(kind: str, tmp_path: Path) -> None:
    found = large.run(kind, 0.01, tmp_path)
    assert (found["images"], found["bytes"]) == {
        "idx files": (12755, 12755 * 784),
        "a class": (66, 66 * 3 * 224 * 224),
    }[kind]
    assert 0 < found["seconds"] < found["process_seconds"]
    assert found["peak_bytes"] > 10**8


def test_table_of_large_data() -> None:
    found = [
        {"kind": kind, "round": turn, "images": images, "bytes": size, "seconds": images / 1e5, "data_share": 0.25}
        | {"process_seconds": images / 1e5 + 5 + size / 1e9 + turn, "peak_bytes": 10**9 + size * 1.02}
        for turn in range(3)
        for kind, images, size in (("idx files", 10**6, 10**9), ("idx files", 4 * 10**6, 4 * 10**9))
    ]
    assert large.table({**FACTS, "command": "python x", "runs": found}) == (
        "| data | images | size | training, µs per image | waiting for data | start-up and reading, s | peak memory |\n"
        "|---|---|---|---|---|---|---|\n"
        "| idx files | 1,000,000 | 1.0 GB | 10.0 | 25% | 7.0 | 2.02 GB |\n"
        "| idx files | 4,000,000 | 4.0 GB | 10.0 | 25% | 10.0 | 5.08 GB |\n\n"
        "Each GB of images adds, from the smallest to the largest set, for idx files: 1.02 GB of memory and 1.0 s of "
        "reading.\n"
        "Medians of 3 interleaved rounds on: a CPU, torch 2.15.0, 2026-11-26.\n"
        "`python x`\n"
    )


def test_the_saved_tables_are_those_of_the_saved_results() -> None:
    for module, name in ((networks, "bigger-networks"), (large, "large-data")):
        for path in RESULTS.glob(f"{name}-*.json"):
            assert path.with_suffix(".md").read_text(encoding="utf-8") == module.table(json.loads(path.read_text()))
