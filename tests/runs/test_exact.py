"""A run that is interrupted and resumed ends bit for bit as an uninterrupted run."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_amp.runs import checkpoint_files
from tests.conftest import WITH_TESTS, Run, command
from tests.runs.test_resume import flat

KEPT = (
    *("state_dict", "optimizer_states", "lr_schedulers", "MixedPrecision", "loops", "epoch", "global_step"),
    *("callbacks", "train_means", "random_states"),
)
EPOCHS, BATCHES = 3, 20
UNSCHEDULED = (
    *("--config=configs/smoke.yaml", f"--trainer.limit_train_batches={BATCHES}", f"--trainer.max_epochs={EPOCHS}"),
    *("--checkpoint.every_n_train_steps=3", "--trainer.log_every_n_steps=2"),
)
SCHEDULE = ("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.99", "--model.lr_scheduler_interval=step")
SETTINGS = (*UNSCHEDULED, *SCHEDULE)


def last(version: int) -> dict[str, Any]:
    return checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/last.ckpt"))


def interrupted(run: Run, step: int, *args: str, validating: bool = False) -> None:
    """Start a fit that fails at training step `step`, or in the first validation from then on."""
    cut = ("--trainer.callbacks=tests.interrupt.Interrupt", f"--trainer.callbacks.step={step}")
    with pytest.raises(SystemExit) as exit_info:
        run("fit", *args, *cut, f"--trainer.callbacks.validating={validating}")
    assert exit_info.value.code == 1


def resume(run: Run, *args: str) -> None:
    """Resume from the newest run, without the callback that interrupted it."""
    run("fit", "--ckpt_path=last", "--trainer.callbacks=null", *args)


def assert_same(version: int, expected: int = 0) -> None:
    """Assert that two runs have the same last checkpoint and the same logs."""
    found, wanted = last(version), last(expected)
    for key in KEPT:
        assert flat(found.get(key)) == flat(wanted.get(key)), key
    assert logged(version) == logged(expected)


def logged(version: int) -> tuple[str, list[tuple[str, int, float]]]:
    """Return metrics.csv, and the curves in TensorBoard."""
    folder = Path(f"lightning_logs/version_{version}")
    events = EventAccumulator(str(folder)).Reload()
    scalars = [(tag, e.step, e.value) for tag in sorted(events.Tags()["scalars"]) for e in events.Scalars(tag)]
    assert scalars
    return (folder / "metrics.csv").read_text(), scalars


def test_the_same_command_twice(run: Run, fitted: Run) -> None:
    fitted(*SETTINGS)
    run("fit", *SETTINGS)
    assert_same(1)


def test_a_checkpoint_of_an_exception_is_resumed_only_if_asked(run: Run, fitted: Run) -> None:
    """Unasked, Lightning resumes from the checkpoint that OnExceptionCheckpoint wrote."""
    fitted(*SETTINGS)
    kept = "{class_path: OnExceptionCheckpoint, init_args: {dirpath: kept}}"
    cut = "{class_path: tests.interrupt.Interrupt, init_args: {step: 10}}"
    with pytest.raises(SystemExit):
        run("fit", *SETTINGS, f"--trainer.callbacks=[{kept}, {cut}]")
    assert Path("kept/on_exception.ckpt").is_file()
    assert "\ncheckpoint " not in run("fit", *SETTINGS, f"--trainer.callbacks=[{kept}]")
    for key in ("state_dict", "loops", "global_step"):
        assert flat(last(2)[key]) == flat(last(0)[key]), key


@pytest.mark.parametrize("config", ["fp32", "bf16", "fp16-cpu"])
def test_within_an_epoch(run: Run, fitted: Run, config: str) -> None:
    settings = ("-c", f"{config}.yaml", *SETTINGS)
    fitted(*settings)
    assert last(0)["global_step"] == EPOCHS * BATCHES
    interrupted(run, 10, *settings)
    resume(run)
    assert_same(2)


@pytest.mark.parametrize("steps", [(4, 11, 25, 43), (19, 20, 21, 59), (20, 40, 41)])
def test_interrupted_again_and_again(run: Run, fitted: Run, steps: tuple[int, ...]) -> None:
    fitted(*SETTINGS)
    interrupted(run, steps[0], *SETTINGS)
    for step in steps[1:]:
        interrupted(run, step, "--ckpt_path=last")
    resume(run)
    assert_same(len(steps) + 1)


def test_during_validation(run: Run, fitted: Run) -> None:
    fitted(*SETTINGS)
    interrupted(run, 20, *SETTINGS, validating=True)
    interrupted(run, 40, "--ckpt_path=last", validating=True)
    resume(run)
    assert_same(3)


def test_with_accumulated_gradients(run: Run) -> None:
    """In real fp16, with a schedule that depends on the number of steps."""
    steps = 21  # of 3 batches; the last step of an epoch has 2
    schedule = ("--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.01", f"--lr_scheduler.total_steps={steps}")
    every = ("--trainer.accumulate_grad_batches=3", "--checkpoint.every_n_train_steps=2")
    settings = ("--config=fp16-cpu.yaml", *UNSCHEDULED, *schedule, "--model.lr_scheduler_interval=step", *every)
    run("fit", *settings)
    interrupted(run, 5, *settings)
    for step in (5, 12):  # the first one resumes from the same checkpoint as the run before it
        interrupted(run, step, "--ckpt_path=last")
    resume(run)
    assert last(4)["global_step"] == steps
    assert_same(4)


@pytest.mark.parametrize("search", ["null", "strong_wolfe"])
def test_with_an_optimizer_that_computes_the_loss_several_times(run: Run, search: str) -> None:
    """Its state has lists of tensors and plain numbers. They are loaded with weights_only and pass the schema."""
    optimizer = ("--optimizer=LBFGS", "--optimizer.lr=0.2", "--optimizer.max_iter=3", "--optimizer.history_size=2")
    settings = ("-c=fp32.yaml", *SETTINGS, *optimizer, f"--optimizer.line_search_fn={search}", "--network.hidden_dim=8")
    run("fit", *settings)
    interrupted(run, 10, *settings)
    interrupted(run, 40, "--ckpt_path=last", "--model.steps_per_execution=4")
    resume(run)
    assert last(0)["global_step"] == EPOCHS * BATCHES == len(last(0)["train_means"][0]) * EPOCHS
    assert len(last(3)["optimizer_states"][0]["state"][0]["old_dirs"]) == 2
    assert_same(3)


@pytest.mark.parametrize(
    "interval",
    [
        ("--trainer.val_check_interval=6",),
        ("--trainer.val_check_interval=12", "--trainer.check_val_every_n_epoch=null"),
    ],
)
def test_with_validation_within_an_epoch(run: Run, interval: tuple[str, ...]) -> None:
    settings = (*SETTINGS, *interval)
    run("fit", *settings)
    interrupted(run, 8, *settings)
    interrupted(run, 14, "--ckpt_path=last")
    interrupted(run, 33, "--ckpt_path=last")
    resume(run)
    assert_same(4)


def test_after_the_last_validation_within_an_epoch(run: Run) -> None:
    """The epoch keeps the metrics of a validation before the interruption, in the history and for a schedule."""
    schedule = ("--lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--lr_scheduler.monitor=val_loss")
    within = ("--trainer.val_check_interval=6", "--checkpoint.every_n_train_steps=1")
    settings = (*SETTINGS, *within, *schedule, "--model.lr_scheduler_interval=epoch")
    run("fit", *settings)
    interrupted(run, 19, *settings)
    interrupted(run, 39, "--ckpt_path=last")
    resume(run)
    assert_same(3)
    assert (
        last(3)["lr_schedulers"][0]["last_epoch"] == EPOCHS - 1
    )  # the schedule's last step comes after the last checkpoint


def test_with_more_epochs_than_before(run: Run, fitted: Run) -> None:
    fitted(*SETTINGS)
    interrupted(run, 30, *SETTINGS, "--trainer.max_epochs=2")
    resume(run)
    resume(run, f"--trainer.max_epochs={EPOCHS}")
    assert_same(3)


def test_in_two_processes(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {**WITH_TESTS, "MNIST_AMP_DATA__DATA_DIR": str(data_dir)}
    settings = ("--config=ddp-cpu.yaml", *SETTINGS, "--trainer.max_epochs=2")
    command("fit", *settings, cwd=tmp_path, env=env)
    cut = ("--trainer.callbacks=tests.interrupt.Interrupt", "--trainer.callbacks.step=25")
    command("fit", *settings, *cut, cwd=tmp_path, status=1, env=env)
    on = ("--ckpt_path=last", "--trainer.callbacks=null", "--model.steps_per_execution=4")
    command("fit", *on, cwd=tmp_path, env=env)
    assert last(0)["random_states"]["cpu"].shape[0] == len(last(0)["train_means"]) == 2
    assert_same(2)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_on_a_cuda_device(run: Run, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setenv("MNIST_AMP_TRAINER__ACCELERATOR", "cuda")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings = (*SETTINGS, f"--trainer.precision={precision}", "--trainer.deterministic=true")
    run("fit", *settings)
    interrupted(run, 10, *settings)
    interrupted(run, 41, "--ckpt_path=last")
    resume(run)
    assert_same(3)


def test_with_a_limit_of_steps(run: Run) -> None:
    limited = (*SETTINGS, "--trainer.max_epochs=-1", "--trainer.max_steps=50")
    run("fit", *limited)
    interrupted(run, 14, *limited)
    for step in (20, 47):
        interrupted(run, step, "--ckpt_path=last", "--trainer.max_steps=50")
    resume(run, "--trainer.max_steps=50")
    assert last(4)["global_step"] == 50
    assert_same(4)


@pytest.mark.parametrize("limit", [14, 20, 33])
def test_resumed_after_a_limit_of_steps(run: Run, fitted: Run, limit: int) -> None:
    """A limit may end a run within an epoch. The resumed run completes that epoch."""
    fitted(*SETTINGS)
    run("fit", *SETTINGS, f"--trainer.max_steps={limit}")
    assert last(1)["global_step"] == limit
    resume(run, "--trainer.max_steps=-1")
    assert_same(2)


def test_from_the_best_of_a_validation_within_an_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*SETTINGS, "--trainer.val_check_interval=6", "--checkpoint.every_n_train_steps=0")
    run("fit", *settings)
    # a killed run does not write the rows that it has logged so far
    monkeypatch.setattr(CSVLogger, "finalize", lambda self, status: None)
    interrupted(run, 8, *settings)
    best = Path("lightning_logs/version_1/checkpoints/best.ckpt")
    assert checkpoint_files.read(best)["global_step"] == 6
    run("fit", f"--ckpt_path={best}", "--trainer.callbacks=null")
    assert_same(2)


def test_a_run_that_was_killed_before_its_first_checkpoint(run: Run) -> None:
    """Its folder has the best checkpoint of the earlier run, but no last checkpoint yet."""
    settings = (*SETTINGS, "--trainer.val_check_interval=6")
    run("fit", *settings)
    interrupted(run, 17, *settings)
    interrupted(run, 16, "--ckpt_path=last")
    folder = Path("lightning_logs/version_2/checkpoints")
    assert [path.name for path in folder.iterdir()] == ["best.ckpt"]
    resume(run)
    assert_same(3)
