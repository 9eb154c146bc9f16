"""A whole number is a count and a decimal number is a share, wherever it is written and whatever is installed."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from lightning.pytorch import Trainer

from mnist_amp.cli.trainer_options import NUMBERS
from mnist_amp.runs import checkpoint_files
from tests.conftest import Run

WRITTEN = [("1", int, 1), ("1.0", float, 1.0), ("0.5", float, 0.5), ("2", int, 2)]


def numbers(text: str) -> dict[str, object]:
    trainer = yaml.safe_load(text)["trainer"]
    return {name: trainer[name] for name in NUMBERS}


def print_config(run: Run, capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, object]:
    with pytest.raises(SystemExit):
        run("fit", *args, "--print_config")
    return numbers(capsys.readouterr().out)


def test_every_option_of_lightnings_that_takes_both_kinds_is_here() -> None:
    options = inspect.signature(Trainer).parameters
    assert {name for name, option in options.items() if {int, float} <= set(get_args(option.annotation))} == set(
        NUMBERS
    )


@pytest.mark.parametrize(("written", "kind", "value"), WRITTEN)
@pytest.mark.parametrize("place", ["command line", "config file", "environment"])
def test_a_number_keeps_its_kind(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    written: str,
    kind: type,
    value: float,
) -> None:
    args = [f"--trainer.{name}={written}" for name in NUMBERS]
    if place == "config file":
        Path("a.yaml").write_text("trainer:\n" + "".join(f"  {name}: {written}\n" for name in NUMBERS))
        args = ["--config=a.yaml"]
    elif place == "environment":
        for name in NUMBERS:
            monkeypatch.setenv(f"MNIST_AMP_TRAINER__{name.upper()}", written)
        args = []
    found = print_config(run, capsys, *args)
    assert found == dict.fromkeys(NUMBERS, value)
    assert {type(number) for number in found.values()} == {kind}


@pytest.mark.parametrize(("written", "steps"), [("1", 2), ("0.01", 16)])
def test_a_resumed_run_has_the_number_of_its_checkpoint(run: Run, fitted: Run, written: str, steps: int) -> None:
    fitted("--config=configs/smoke.yaml", f"--trainer.limit_train_batches={written}")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    folder = Path("lightning_logs/version_1")
    assert checkpoint_files.read(folder / "checkpoints/last.ckpt")["global_step"] == steps
    assert f"\n  limit_train_batches: {written}\n" in (folder / "config.yaml").read_text()


# Another package makes the same unions in another order, right before Lightning makes its own, which Python's typing
# then takes from its cache of 128.
OTHER_ORDER = """
import sys
from datetime import timedelta
from typing import Optional, Union
class Finder:
    def find_spec(self, found, path, target=None):
        if found == "lightning.pytorch.trainer.trainer":
            for number in range(128):
                Optional[type(f"Type{number}", (), {})]
            Optional[Union[float, int]], Optional[Union[float, int, str, timedelta, dict[str, int]]]
sys.meta_path.insert(0, Finder())
from mnist_amp.__main__ import main
main()
"""


def test_the_order_of_other_packages_unions_does_not_matter(tmp_path: Path) -> None:
    for written, kind, _ in WRITTEN:
        args = [f"--trainer.{name}={written}" for name in NUMBERS]
        program = [sys.executable, "-c", OTHER_ORDER, "fit", *args, "--print_config"]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert {type(number) for number in numbers(done.stdout).values()} == {kind}, written
