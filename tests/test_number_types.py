"""The number types: their ranges, and that values stay plain numbers in configurations and checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from mnist_amp import number_types
from mnist_amp.cli.error_messages import translate_error
from tests.conftest import Run

CASES: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    (number_types.PositiveInt, {"1": 1, "9": 9}, {"0": "at least 1", "-3": "at least 1"}),
    (number_types.NonNegativeInt, {"0": 0}, {"-1": "at least 0"}),
    (
        number_types.PositiveInt32,
        {"1": 1, "2147483647": 2**31 - 1},
        {"0": "at least 1", "2147483648": "at most 2147483647"},
    ),
    (number_types.Seed, {"0": 0, "4294967295": 2**32 - 1}, {"-1": "at least 0", "4294967296": "at most 4294967295"}),
    (number_types.Port, {"0": 0, "65535": 65535}, {"-1": "at least 0", "65536": "at most 65535"}),
    (number_types.PositiveFloat, {"1": 1.0, "1e-3": 1e-3}, {"0": "above 0", ".nan": "above 0", ".inf": "finite"}),
    (number_types.FloatAbove1, {"2": 2.0}, {"1": "above 1", ".inf": "finite"}),
    (number_types.LossScale, {"65536": 65536.0}, {"0": "above 0", "2000000000000": "at most 1000000000000"}),
    (number_types.OpenUnitInterval, {"0.5": 0.5}, {"0": "above 0", "1": "below 1"}),
]


@pytest.mark.parametrize(("kind", "accepted", "refused"), CASES)
def test_the_parser_holds_the_range_and_makes_plain_numbers(
    kind: Any, accepted: dict[str, Any], refused: dict[str, str]
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--number", type=kind)
    parser.add_argument("--config", action="config")
    for text, value in accepted.items():
        for args in ([f"--number={text}"], [f"--config={{number: {text}}}"]):
            found = parser.parse_args(args).number
            assert (type(found), found) == (type(value), value)
    for text, needed in refused.items():
        with pytest.raises(Exception, match="restriction") as error:
            parser.parse_args([f"--config={{number: {text}}}"])
        value = yaml.safe_load(text)
        assert str(translate_error(str(error.value), [])) == f"number is {value}; it must be {needed}."


@pytest.mark.parametrize("text", ["1.5", "true", "many", "[1]"])
def test_another_kind_of_value_is_refused_by_the_name_of_the_kind(text: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--number", type=number_types.PositiveInt)
    with pytest.raises(Exception, match="Expected") as error:
        parser.parse_args([f"--number={text}"])
    assert str(translate_error(str(error.value), [])) == f"number can't be {text}; it takes int."


def test_values_are_plain_in_checkpoints_and_configurations(run: Run) -> None:
    scaler = ("--scaler.init_scale=1024", "--scaler.growth_interval=7", "--config=configs/fp16-cpu.yaml")
    run(
        "fit",
        "--config=configs/smoke.yaml",
        "--network.hidden_dim=16",
        "--data.batch_size=32",
        "--data.seed=3",
        *scaler,
    )
    folder = Path("lightning_logs/version_0")
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    network = checkpoint["hyper_parameters"]["network"]["init_args"]
    hyperparameters = {**network, **checkpoint["hyper_parameters"], **checkpoint["datamodule_hyper_parameters"]}
    names = ("hidden_dim", "steps_per_execution", "batch_size", "val_size", "seed")
    assert [(type(hyperparameters[name]), hyperparameters[name]) for name in names] == [
        *((int, 16), (str, "auto"), (int, 32), (int, 5000), (int, 3))
    ]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["scaler"]["init_scale"], config["scaler"]["growth_interval"]) == (1024.0, 7)
    assert (config["data"]["seed"], config["seed_everything"]) == (3, 42)
