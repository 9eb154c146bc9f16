from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mnist_amp.cli.settings import check, endless
from mnist_amp.errors import UsageError
from tests.conftest import Refused, Run

DATA = {"data_dir": "data", "batch_size": 1, "val_size": 0}
GOOD: dict[str, Any] = {
    "data": DATA,
    "model": {"hidden_dim": 1, "steps_per_execution": 1},
    "seed_everything": False,
    "matmul_precision": "highest",
    "optimizer": {},
}


@pytest.mark.parametrize(("key", "value"), [("max_epochs", -1), ("max_epochs", None), ("max_steps", -1)])
def test_no_limit_is_in_range(key: str, value: int | None) -> None:
    check({**GOOD, "trainer": {"accumulate_grad_batches": 1, key: value}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1])
def test_numbers_out_of_range(value: float) -> None:
    trainer = {"accumulate_grad_batches": 1}
    with pytest.raises(UsageError, match=rf"^optimizer.lr is {value}; it must be above 0.$") as error:
        check({**GOOD, "trainer": trainer, "optimizer": {"class_path": "SGD", "init_args": {"lr": value}}})
    assert error.value.key == "optimizer.lr"


def test_null_where_a_value_is_needed() -> None:
    with pytest.raises(UsageError, match=r"^data.batch_size is null; leave it out to use its default.$"):
        check({**GOOD, "data": {**DATA, "batch_size": None}, "trainer": {"accumulate_grad_batches": 1}})


def test_a_run_without_a_limit_reports_its_end(run: Run) -> None:
    printed = run("fit", "--config=configs/smoke.yaml", "--trainer.max_epochs=-1", "--trainer.max_steps=3")
    assert "\nends" not in printed
    limits = {"max_steps": -1, "max_time": None, "fast_dev_run": False}
    assert endless(SimpleNamespace(max_epochs=5, **limits)) is None
    assert endless(SimpleNamespace(max_epochs=-1, **limits)) == (
        "never by itself, because trainer.max_epochs is -1; Ctrl-C saves and ends it"
    )
    assert endless(SimpleNamespace(max_epochs=None, **limits)) == (
        "after 1,000 epochs, Lightning's limit, because trainer.max_epochs is null; Ctrl-C saves and ends it"
    )


def test_a_logger_that_would_overwrite_the_metrics_of_another_run(refused: Refused, tmp_path: Path) -> None:
    for version, folder in (("0", "version_0"), ("mine", "mine")):
        metrics = tmp_path / "logs" / "lightning_logs" / folder / "metrics.csv"
        metrics.parent.mkdir(parents=True)
        metrics.write_text("step\n1\n")
        settings = [f"--trainer.logger.{name}" for name in ("save_dir=logs", f"version={version}")]
        assert refused("fit", "--config=smoke.yaml", "--trainer.logger=CSVLogger", *settings) == (
            f"mnist-amp: error: trainer.logger would overwrite logs/lightning_logs/{folder}/metrics.csv. Give another "
            "version, or leave it out for a new one. See mnist-amp fit --help.\n"
        )
        assert metrics.read_text() == "step\n1\n"
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}
