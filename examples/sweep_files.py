"""The files that sweep.py reads: the search space, and the metrics of a run. See docs/sweeps.md."""

import csv
import json
from pathlib import Path

import yaml
from optuna.trial import Trial

from mnist_amp.errors import RequestError
from mnist_amp.runs.config_text import parse_yaml, read_yaml
from mnist_amp.runs.folders import run_dirs


def draw(trial: Trial, space: Path, passed: list[str]) -> list[str]:
    """Return the options of `fit`: those that are passed on, and others from the space.

    Optuna draws those that the trial does not have yet.

    Raises:
        RequestError: the space has a mistake.
    """
    settings, names = [], {option.partition("=")[0] for option in passed}
    for name, value in parse_yaml(space.read_text(encoding="utf-8"), str(space)).items():
        if f"--{name}" in names:
            continue
        try:
            chosen = _suggest(trial, name, value)
        except (TypeError, ValueError, yaml.YAMLError) as error:
            raise RequestError(f"{space}: {name}: {error}") from error
        settings.append(f"--{name}={chosen if isinstance(chosen, str) else json.dumps(chosen)}")
    return [*passed, *sorted(settings, key=lambda text: "." in text.partition("=")[0])]  # classes come first


def _suggest(trial: Trial, name: str, value: object) -> object:
    if isinstance(value, dict) and "choices" in value:
        choices = [json.dumps(choice) if isinstance(choice, dict) else choice for choice in value["choices"]]
        return trial.suggest_categorical(name, choices)
    if isinstance(value, dict) and "low" in value:
        bounds = {key: read_yaml(str(bound)) for key, bound in value.items()}  # YAML takes 1e-4 for a text
        whole = all(isinstance(bound, int) for bound in bounds.values())
        return (trial.suggest_int if whole else trial.suggest_float)(name, **bounds)
    return value


def read_metric(root: Path, metric: str) -> tuple[dict[int, float], list[str]]:
    """Return a metric of the newest run by epoch, and the names of all metrics that the run logged so far."""
    path = next(run_dirs(root), root) / "metrics.csv"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = list(csv.DictReader(text.rpartition("\n")[0].splitlines()))  # the last row may be incomplete
    values = {int(row["epoch"]): float(row[metric]) for row in rows if row.get(metric)}
    return values, sorted({name for row in rows for name in row} - {"epoch", "step"})
