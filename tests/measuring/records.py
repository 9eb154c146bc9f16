"""Records of a comparison, written by hand."""

from dataclasses import replace
from typing import Any

from mnist_amp.measuring.compare_records import Cell, Comparison, Failure, Measurement, Metric, Score, Setting, Speed
from mnist_amp.measuring.profile_records import GradientSizes, Layer, MemoryUse, Operation, Profile, Spread, StepTimes

CPU = "CPU (x86_64, threads: 2)"
MEMORY = MemoryUse(1_000_000, 1_000_000, 2_000_000, 3_000_000, 1_000_000, peak=None, data=None)


def sized(width: int, batch: int) -> Setting:
    return Setting.of({"network.hidden_dim": width, "data.batch_size": batch})


def speeds(precision: str, effective: str, width: int, batch: int, *seconds: float, **more: Any) -> list[Measurement]:
    """Return a measurement for each round."""
    return speeds_at(sized(width, batch), precision, effective, *seconds, **more)


def speeds_at(setting: Setting, precision: str, effective: str, *seconds: float, **more: Any) -> list[Measurement]:
    """Return a measurement for each round, at any setting."""
    return [
        Measurement(
            Cell("speed", precision, setting, turn),
            Speed(**{"steps": 900, "waiting_seconds": 1e-4, **more}, effective=effective, seconds=value),
        )
        for turn, value in enumerate(seconds)
    ]


def scores(precision: str, effective: str, *accuracies: float, **more: Any) -> list[Measurement]:
    """Return a measurement for each seed."""
    curve = [(1.0, 2.3), (2.0, 1.9)]
    return [
        Measurement(
            Cell("score", precision, sized(128, 64), seed),
            Score(effective, accuracy, 2, curve, **more),
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def spread(seconds: float, share: float = 1.0) -> Spread:
    return Spread(seconds, seconds, seconds, seconds, round(1e9 * seconds), share)


WORK = {
    **{"waiting for data": 0.1, "matrix products": 0.5, "casts": 0.0, "optimizer": 0.1},
    **{"other operations": 0.1, "overhead": 0.2},
}
PROFILE = Profile(
    precision="32-true",
    optimizer="Adam",
    fused=True,
    steps=25,
    warmup=20,
    times=StepTimes(spread(0.001), spread(0.001), 1.0, {"forward": spread(0.001)}),
    work=WORK,
    flops=100_000_000,
    peak_flops=2e11,
    memory=MEMORY,
    non_finite=None,
    gradients=GradientSizes(3, {0: 1}, 0, 0.0, 0.0),
    layers=[Layer("fc1", "Linear", "float32", "float32", "float32")],
    operations=[Operation("forward", "addmm", "float32", "float32", 2)],
    kernels=None,
)


def profiled(precision: str, effective: str, setting: Setting | None = None, **more: Any) -> Measurement:
    """Return the profile of a precision, by default at the setting of the run."""
    cell = Cell("profile", precision, setting or sized(128, 64), 0)
    return Measurement(cell, replace(PROFILE, precision=effective, **more))


def failed_speed(precision: str, width: int, error: str, out_of_memory: bool = False) -> Measurement:
    return Measurement(Cell("speed", precision, sized(width, 64), 0), Failure(error, out_of_memory))


def failed_score(precision: str, error: str) -> Measurement:
    return Measurement(Cell("score", precision, sized(128, 64), 0), Failure(error))


def comparison(cells: list[Measurement], **changed: Any) -> Comparison:
    values: dict[str, Any] = {
        "command": "mnist-amp compare",
        "date": "2026-11-24",
        "versions": {"torch": "2.15.0"},
        "own": sized(128, 64),
        "precisions": ["32-true", "bf16-mixed", "16-mixed"],
        "axes": {"network.hidden_dim": [128, 512], "data.batch_size": [64]},
        "metric": Metric("val_accuracy", "max"),
        "seeds": 2,
        "rounds": 3,
        "seconds": 1.0,
        "epochs": 5,
        "config": {
            "seed_everything": 0,
            "network": {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": 128}},
        },
        "device": CPU,
        "half_hardware": True,
        "cells": cells,
    }
    return Comparison(**{**values, **changed})


SLOWER_HERE = [
    *speeds("32-true", "32-true", 128, 64, 0.001, 0.001, 0.001),
    *speeds("bf16-mixed", "bf16-mixed", 128, 64, 0.002, 0.002, 0.0025),
    *speeds("16-mixed", "bf16-mixed", 128, 64, 0.002),
    profiled("32-true", "32-true"),
    profiled("bf16-mixed", "bf16-mixed", peak_flops=2e11),
    *speeds("32-true", "32-true", 512, 64, 0.004, 0.004, 0.004),
    *speeds("bf16-mixed", "bf16-mixed", 512, 64, 0.002, 0.002, 0.001),
    *scores("32-true", "32-true", 0.96, 0.97),
    *scores("bf16-mixed", "bf16-mixed", 0.97, 0.96),
]
