"""A checkpoint with anything else in it than a run writes: one message, and nothing is left."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.runs.checkpoint_schema import schema_error, shape_of
from tests.conftest import THEIRS, Refused, Run, files, filled

GONE = object()
ADAM = ("optimizer_states", 0, "state", 0)
PROGRESS = "epoch_loop.automatic_optimization.optim_progress"
CAN_NOT = "is damaged: the state of its optimizer can't be loaded: "
OTHER = "is damaged, or a checkpoint of another project: its "
FAILED = "is damaged, or of another version, and can't be loaded: "


def put(nest: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        nest = nest[key]
    if value is GONE:
        del nest[path[-1]]
    else:
        nest[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # which crashed the process
        ((*ADAM, "exp_avg"), torch.zeros(3), f"{CAN_NOT}ValueError: exp_avg has the shape (3,), not (128, 784)."),
        ((*ADAM, "exp_avg"), GONE, f"{CAN_NOT}KeyError: 'exp_avg'."),
        (("optimizer_states", 0, "param_groups"), [], f"{CAN_NOT}ValueError: {THEIRS}."),
        (("optimizer_states",), GONE, "has no state of the optimizer, so no fit can go on from it; it can be tested."),
        (("optimizer_states",), None, f"{OTHER}optimizer_states is not what it should be."),
        (("optimizer_states",), [], "is not enough to fit with: its optimizer_states is not what it should be."),
        (("pytorch-lightning_version",), GONE, f"{OTHER}pytorch-lightning_version is missing."),
        (("pytorch-lightning_version",), "junk", f"{OTHER}pytorch-lightning_version is not what it should be."),
        (("callbacks", "RunCheckpoint", "history"), 3, f"{OTHER}callbacks.RunCheckpoint.history is not what it should be."),
        (("train_means",), torch.zeros(5), f"{OTHER}train_means is not what it should be."),
        (("random_states", "cpu"), torch.zeros(1, 9), f"{FAILED}TypeError: {THEIRS}"),
        (("pending_row",), {"step": 3}, f"{OTHER}pending_row.epoch is missing."),
        (("lr_schedulers",), [3], f"{OTHER}lr_schedulers is not what it should be."),
        (("lr_schedulers",), [], "is damaged: it has no state of its schedule."),
        (("mnist_amp_folder",), 3, f"{OTHER}mnist_amp_folder is not what it should be."),
        (
            ("hyper_parameters", "lr_scheduler", "init_args", "step_size"),
            torch.zeros(2),
            f"{OTHER}hyper_parameters.lr_scheduler is not what it should be.",
        ),
        (("hyper_parameters", "optimizer"), GONE, f"{OTHER}hyper_parameters.optimizer is missing."),
        (("state_dict", 3), torch.zeros(2), f"{OTHER}state_dict.3 is not what it should be."),
        (("state_dict", "a"), torch.zeros(2).to_sparse(), f"{OTHER}state_dict.a is not what it should be."),
        (("state_dict", "a"), torch.zeros(2, device="meta"), f"{OTHER}state_dict.a is not what it should be."),
        (("loops", "fit_loop"), {}, f"{OTHER}loops.fit_loop.epoch_progress is missing."),
        (("loops", "fit_loop", PROGRESS), 3, f"is damaged, or of another version of Lightning: its progress.{PROGRESS} is not what it should be."),
        (("mnist_amp_config",), "data: 3", "is damaged: in its configuration, data is not what it should be."),
        (("mnist_amp_config",), "a: [\nb: 3", f"is damaged: its configuration:2:5: this is not YAML: {THEIRS}."),
        (("mnist_amp_config",), "data: &a {x: *a}", "is damaged: its configuration holds more values than settings could be: a YAML alias may refer to itself."),
    ],
)  # fmt: skip
def test_a_part_is_changed(
    checkpoint: Any, refused: Refused, tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    put(checkpoint, path, value)
    torch.save(checkpoint, "it.ckpt")
    found = refused("fit", "--ckpt_path=it.ckpt", "--trainer.max_epochs=2")
    assert found == filled(f"mnist-amp: error: it.ckpt {message}\n", found)
    assert files(tmp_path) == {"it.ckpt"}
    assert os.listdir() == ["it.ckpt"]  # noqa: PTH208  (folders, too)


def test_what_it_has_set_is_said(checkpoint: Any, refused: Refused) -> None:
    torch.save({**checkpoint, "mnist_amp_config": "data: {batch_size: x}"}, "it.ckpt")
    assert refused("fit", "--ckpt_path=it.ckpt") == (
        "mnist-amp: error: data.batch_size can't be x; it takes int. It is set by the checkpoint. See mnist-amp fit "
        "--help.\n"
    )


def test_validation_needs_to_know_the_split(checkpoint: Any, refused: Refused) -> None:
    del checkpoint["datamodule_hyper_parameters"]
    torch.save(checkpoint, "it.ckpt")
    assert refused("validate", "--ckpt_path=it.ckpt") == (
        "mnist-amp: error: it.ckpt is not enough to validate with: its datamodule_hyper_parameters is missing.\n"
    )


def test_weights_alone_can_be_tested(checkpoint: Any, run: Run) -> None:
    del checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    torch.save(checkpoint, "it.ckpt")
    assert "accuracy" in run("test", "--ckpt_path=it.ckpt", "--trainer.limit_test_batches=2")


def test_shapes() -> None:
    nest = {"a": [{"b": 3}], "c": None, "d": {"e": "f"}}
    assert schema_error(nest, shape_of(nest)) is None
    assert schema_error({}, shape_of(nest)) is None
    assert schema_error({**nest, "d": {"e": 3}}, shape_of(nest)) == "d.e is not what it should be"
    assert schema_error({"a": [{"b": 3}, {}]}, {"a": [{"b": int}]}) == "a.b is missing"
    assert schema_error({"a": 3}, {"a": (str, None)}) == "a is not what it should be"
