"""A damaged checkpoint is refused with one message, and nothing is written."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.runs.checkpoint_schema import optional, schema_error, shape_of
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
        # some of these crashed the process before they were checked
        ((*ADAM, "exp_avg"), torch.zeros(3), f"{CAN_NOT}ValueError: exp_avg has the shape (3,), not (128, 784)."),
        ((*ADAM, "exp_avg"), GONE, f"{CAN_NOT}KeyError: 'exp_avg'."),
        (("optimizer_states", 0, "param_groups"), [], f"{CAN_NOT}ValueError: {THEIRS}."),
        ((*ADAM, "exp_avg"), [torch.zeros(2).to_sparse()], f"{OTHER}optimizer_states.state.0.exp_avg is invalid."),
        (("optimizer_states",), GONE, "has no optimizer state, so no fit can resume from it. To begin a new run with its weights, use --weights it.ckpt instead."),
        (("optimizer_states",), None, f"{OTHER}optimizer_states is invalid."),
        (("optimizer_states",), [], "is not enough to fit with: its optimizer_states is invalid."),
        (("pytorch-lightning_version",), GONE, f"{OTHER}pytorch-lightning_version is missing."),
        (("pytorch-lightning_version",), "junk", f"{OTHER}pytorch-lightning_version is invalid."),
        (("callbacks", "RunCheckpoint", "history"), 3, f"{OTHER}callbacks.RunCheckpoint.history is invalid."),
        (("train_means",), torch.zeros(5), f"{OTHER}train_means is invalid."),
        (("random_states", "cpu"), torch.zeros(1, 9), f"{FAILED}TypeError: {THEIRS}"),
        (("callbacks", "RunCheckpoint", "history", 0, "val_loss"), "a", f"{OTHER}callbacks.RunCheckpoint.history.val_loss is invalid."),
        (("callbacks", "RunCheckpoint", "validated"), 3, f"{OTHER}callbacks.RunCheckpoint.validated is invalid."),
        (("pending_row",), {"epoch": 0}, f"{FAILED}KeyError: 'step'"),
        (("pending_row",), {"step": 3, "train_loss": None}, f"{FAILED}TypeError: {THEIRS}"),
        (("lr_schedulers",), [3], f"{OTHER}lr_schedulers is invalid."),
        (("lr_schedulers",), [], "is damaged: it has no state of its schedule."),
        (("mnist_amp_folder",), 3, f"{OTHER}mnist_amp_folder is invalid."),
        (
            ("hyper_parameters", "lr_scheduler", "init_args", "step_size"),
            torch.zeros(2),
            f"{OTHER}hyper_parameters.lr_scheduler is invalid.",
        ),
        (("hyper_parameters", "optimizer"), GONE, f"{OTHER}hyper_parameters.optimizer is missing."),
        (("state_dict", 3), torch.zeros(2), f"{OTHER}state_dict.3 is invalid."),
        (("state_dict", "a"), torch.zeros(2).to_sparse(), f"{OTHER}state_dict.a is invalid."),
        (("state_dict", "a"), torch.zeros(2, device="meta"), f"{OTHER}state_dict.a is invalid."),
        (("loops", "fit_loop"), {}, f"{OTHER}loops.fit_loop.epoch_progress is missing."),
        (("loops", "fit_loop", PROGRESS), 3, f"is damaged, or of another version of Lightning: its progress.{PROGRESS} is invalid."),
        (("mnist_amp_config",), "data: 3", "is damaged: in its configuration, data is invalid."),
        (("mnist_amp_config",), "a: [\nb: 3", f"is damaged: its configuration:2:5: this is not YAML: {THEIRS}."),
        (("mnist_amp_config",), "data: &a {x: *a}", "is damaged: its configuration has more than 10,000 values. A YAML alias may refer to itself."),
    ],
)  # fmt: skip
def test_a_damaged_part_is_refused(
    checkpoint: Any, refused: Refused, tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    put(checkpoint, path, value)
    torch.save(checkpoint, "it.ckpt")
    found = refused("fit", "--ckpt_path=it.ckpt", "--trainer.max_epochs=2")
    assert found == filled(f"mnist-amp: error: it.ckpt {message}\n", found)
    assert files(tmp_path) == {"it.ckpt"}
    assert os.listdir() == ["it.ckpt"]  # noqa: PTH208  (with folders)


def test_a_wrong_setting_of_a_checkpoint_is_reported_as_its_own(checkpoint: Any, refused: Refused) -> None:
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


def test_schema_error_names_the_part() -> None:
    nest = {"a": [{"b": 3}], "c": None, "d": {"e": "f"}}
    assert schema_error(nest, shape_of(nest)) is None
    assert schema_error({}, shape_of(nest)) is None
    assert schema_error({**nest, "d": {"e": 3}}, shape_of(nest)) == "d.e is invalid"
    assert schema_error({"a": [{"b": 3}, {}]}, {"a": [{"b": int}]}) == "a.b is missing"
    assert schema_error({"a": 3}, {"a": str | None}) == "a is invalid"
    assert schema_error({"a": None}, {"a": optional({"b": int})}) is None
    assert schema_error({"a": {"b": "c"}}, {"a": optional({"b": int})}) == "a is invalid"
