"""Every private name of Lightning's that this project uses, each with the reason.

Lightning may rename these at any time. `tests/test_lightning_internals.py` names each of them, so a new version of
Lightning fails there first, with the name that is gone. Nothing else in this project uses a name of Lightning's that
begins with an underscore, or reads and writes the counters of its training loop.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.strategies.launchers import subprocess_script
from torch import Tensor

# --- the command line -------------------------------------------------------------------------------------------------


class OpenCLI(LightningCLI):
    """A LightningCLI with public names for the parts that a subclass must reach."""

    @property
    def subcommand_parsers(self) -> dict[str, LightningArgumentParser]:
        """The parser of each command.

        Lightning's public hook, `add_arguments_to_parser`, runs before the options of the command itself are added. It
        can't change their defaults and help texts.
        """
        return self._subcommand_parsers

    def run_subcommand(self, subcommand: str) -> None:
        """Run the command. Lightning has no public way to run anything else than a method of the Trainer."""
        super()._run_subcommand(subcommand)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_subcommand(subcommand)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let a checkpoint's hyperparameters override the command line.

        Lightning has no option against it.
        """


# --- the Trainer's connectors -----------------------------------------------------------------------------------------


def is_restoring(trainer: Trainer) -> bool:
    """Whether a Trainer is about to restore a checkpoint, or is restoring it now.

    Lightning has no public hook between the reading of a checkpoint and the end of its restoring.
    """
    return bool(trainer._checkpoint_connector._loaded_checkpoint)


def ignore_slurm_checkpoints(trainer: Trainer) -> None:
    """Make a Trainer start without a checkpoint, even if SLURM runs it.

    Otherwise Lightning resumes from any `hpc_ckpt_N.ckpt` in the folder, even of another job. Lightning has no option
    against it: setting `trainer.ckpt_path` to None turns this search on again.
    """
    trainer._checkpoint_connector._user_managed = True


def set_sigterm_handler(trainer: Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
    """Set what a Trainer does on SIGTERM.

    Lightning has no public way to replace its own handler, which it installs when a fit or an evaluation begins. That
    one ends a command some time later, with exit status 0.
    """
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[assignment,method-assign]


class LogRow(NamedTuple):
    """A row that the loggers get: the optimizer step that it belongs to, and metrics by name."""

    step: int
    metrics: dict[str, float]


def pending_row(trainer: Trainer) -> LogRow | None:
    """Return the row that the loggers get after this batch or epoch; None if no row is due.

    Callbacks save checkpoints before Lightning hands the row of that step to the loggers. Lightning has no public way
    to know that a row is due: `trainer.logged_metrics` also has metrics of earlier rows.
    """
    connector = trainer._logger_connector
    at_epoch_end = connector._first_loop_iter is None
    is_due = trainer.is_last_batch if at_epoch_end else connector.should_update_logs
    if not (trainer.training and trainer.loggers and is_due):
        return None
    step = trainer.fit_loop.epoch_loop._batches_that_stepped - at_epoch_end  # the row of an epoch has its last step
    return LogRow(step, {name: float(value) for name, value in connector.metrics["log"].items()})


def log_no_hyperparameters(module: LightningModule, data: LightningDataModule) -> None:
    """Keep Lightning from logging the hyperparameters of a module and its data.

    The loggers get all settings of the command instead. The public `save_hyperparameters(logger=False)` works only
    within a constructor, and would also keep them from the loggers of users who run the module without the command.
    """
    module._log_hyperparams = data._log_hyperparams = False


def metric_prefix(logger: MLFlowLogger) -> str:
    """Return what a logger puts before the names of metrics. It has no public attribute for its `prefix`."""
    return f"{logger._prefix}{logger.LOGGER_JOIN_CHAR}" if logger._prefix else ""


# --- the fit loop -----------------------------------------------------------------------------------------------------


def batches_since_validation(trainer: Trainer) -> int | None:
    """Return how many batches have begun since a validation was due; 0 if it is due now.

    None if no validation takes place within epochs. Lightning has only private methods that answer this.
    """
    if not isinstance(trainer.val_check_batch, int):
        return None
    progress = trainer.fit_loop.epoch_loop.batch_progress
    count = progress.total if trainer.check_val_every_n_epoch is None else progress.current
    return int(count.ready % trainer.val_check_batch)


def end_restart(trainer: Trainer) -> None:
    """Mark a resumed epoch as an ordinary one, before it ends.

    Otherwise Lightning leaves out the step of a ReduceLROnPlateau at its end. The public setter, `fit_loop.restarting`,
    can't do it: with `max_steps` it sets True, whatever it is given.
    """
    trainer.fit_loop._restarting = False


def end_fit(trainer: Trainer) -> None:
    """End a fit after this batch, without a validation.

    With the public `trainer.should_stop`, Lightning validates before it ends, and `trainer.max_steps` can't be set.
    """
    trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


def run_on(trainer: Trainer) -> None:
    """Take the limits of epochs and steps from a fit that has begun; it then runs until something ends it.

    A Trainer that is made without limits would show them to `configure_optimizers`, whose schedules may depend on them.
    """
    trainer.fit_loop.max_epochs = -1
    trainer.fit_loop.epoch_loop.max_steps = -1


@contextmanager
def unfinished_epoch(trainer: Trainer) -> Iterator[None]:
    """Save the checkpoints in this context as of an unfinished epoch.

    If `max_steps` or `max_time` ends a fit within an epoch, Lightning counts that epoch as done, and a resumed run
    would leave out the rest of it. Lightning has no option against it.
    """
    progress: Any = trainer.fit_loop.epoch_progress
    for scope in (progress.current, progress.total):
        scope.processed -= 1
    yield
    for scope in (progress.current, progress.total):
        scope.processed += 1


def begin_next_epoch(fit_loop: dict[str, Any]) -> None:
    """Change the saved state of a fit loop that has finished an epoch: resumed from it, the next epoch begins.

    Otherwise, with `max_steps`, Lightning runs the end of the finished epoch a second time.
    """
    epochs, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
    if not batches["is_last_batch"] or epochs["current"]["processed"] != epochs["current"]["ready"]:
        return
    for scope in ("current", "total"):
        epochs[scope]["completed"] = epochs[scope]["processed"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # Lightning adds 1 when it resumes


# --- averaged weights -------------------------------------------------------------------------------------------------
# StochasticWeightAveraging keeps all that it knows in private attributes, and has no hooks of its own.


def averaged_module(callback: StochasticWeightAveraging) -> LightningModule | None:
    """Return the module with the averaged weights; None before the average begins."""
    begun = callback.n_averaged is not None and int(callback.n_averaged) > 0
    return callback._average_model if begun else None


def average_start(callback: StochasticWeightAveraging) -> int | float:
    """Return the epoch in which the average begins, counted from 1, or a share of all epochs."""
    return callback._swa_epoch_start


def resume_average(trainer: Trainer, callback: StochasticWeightAveraging) -> None:
    """Continue an average that began before the checkpoint, in the epoch in which the run is resumed.

    Lightning does so at the start of an epoch only. The rest of a resumed epoch would have no schedule, and the
    checkpoints in it would not know the average. The new schedule also changes the rates, which are right already.
    """
    if callback._scheduler_state is None or callback._initialized:
        return
    groups = [dict(group) for group in trainer.optimizers[0].param_groups]
    callback.on_train_epoch_start(trainer, trainer.lightning_module)
    for group, before in zip(trainer.optimizers[0].param_groups, groups, strict=True):
        group.update(before)


def align_logged_step(trainer: Trainer) -> None:
    """Count as many steps for the loggers as the optimizer has taken, at the start of a batch.

    When Lightning resumes, it adds the newest step to that count or not, by the number of batches that are done. This
    is wrong if that number is in batches of another size, or if another number of batches makes a step.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


# --- several optimizer steps in one iteration of the training loop ----------------------------------------------------
# Lightning's loop takes one step per iteration, and has no public way to take several. These functions do for each
# further step what the loop does for the first one.


# the name under which a profiler sees that the training loop fetches a batch; Lightning has no constant for it
NEXT_BATCH_ACTION = "[_TrainingEpochLoop].train_dataloader_next"
# the last parts of those with which a validation begins
VALIDATION_ACTIONS = ("on_validation_model_zero_grad", "on_validation_model_eval")
# the same for a further batch of an iteration, which only `next_batch` fetches
FURTHER_BATCH_ACTION = "[Execution].next_batch"


def next_batch(trainer: Trainer) -> Any:
    """Return the next batch of the epoch, as the training loop would fetch it, not yet on the device."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    profiler = trainer.profiler  # type: ignore[attr-defined]
    profiler.start(FURTHER_BATCH_ACTION)
    batch, _, _ = next(fetcher)
    profiler.stop(FURTHER_BATCH_ACTION)
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = fetcher.done
    return trainer.precision_plugin.convert_input(batch)


def transfer_batch(trainer: Trainer, batch: Any) -> Any:
    """Move a batch to the device, with the transfer hooks of the module and its data."""
    batch = trainer.lightning_module._on_before_batch_transfer(batch)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def begin_next_step(trainer: Trainer, after_step: Callable[[], None]) -> None:
    """Count one step as done and the next one as begun, and advance the schedules by a step.

    Args:
        trainer: in its training loop.
        after_step: called where the loop calls `on_train_batch_end`.
    """
    loop = trainer.fit_loop.epoch_loop
    batches: Any = loop.batch_progress  # its type has no `started`
    steps = loop.automatic_optimization.optim_progress.optimizer.step
    is_scheduled = bool(trainer.strategy.lr_scheduler_configs)
    for scope in (steps.total, steps.current):
        scope.completed += 1
        scope.ready += 1
    for scope in (batches.total, batches.current):
        scope.processed += 1
    if is_scheduled:
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
    after_step()
    for scope in (batches.total, batches.current):
        scope.completed += 1
    if is_scheduled:
        loop.update_lr_schedulers("step", update_plateau_schedulers=True)
    loop._batches_that_stepped += 1
    for scope in (batches.total, batches.current):
        scope.ready += 1
        scope.started += 1


def announce_batch(trainer: Trainer, batch: Any) -> None:
    """Tell `self.log` which batch is trained on now: it takes the size from it with which a value counts in a mean."""
    trainer._logger_connector.on_batch_start(batch)


def count_zero_grad(trainer: Trainer, steps: int) -> None:
    """Count that the gradients were set to zero in each of these steps."""
    zero_grad: Any = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.zero_grad
    for scope in (zero_grad.total, zero_grad.current):
        scope.ready += steps
        scope.started += steps
        scope.completed += steps


@contextmanager
def uncounted_steps(trainer: Trainer) -> Iterator[None]:
    """Undo, at the end of this context, how the optimizer steps in it were counted."""
    progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress
    counts = progress.state_dict()
    try:
        yield
    finally:
        progress.load_state_dict(counts)


def run_training_step(module: LightningModule, inputs: dict[str, Any]) -> tuple[Tensor | None, dict[str, Any]]:
    """Return the loss () of `training_step`, called as the training loop calls it, and what else it returned by name.

    The loss is None if it returned none.

    The loop notes the name of the hook in a private attribute, without which `self.log` fails.

    Args:
        module: in the training loop.
        inputs: arguments by name, see `step_inputs`.
    """
    outer, module._current_fx_name = module._current_fx_name, "training_step"
    try:
        output = module.training_step(*inputs.values())
    finally:
        module._current_fx_name = outer
    if isinstance(output, Tensor):
        return output, {}
    result = ClosureResult.from_training_step_output(output)
    return result.closure_loss, result.extra


def step_inputs(closure: Closure) -> dict[str, Any]:
    """Return the arguments, by name, that Lightning's closure gives to `training_step`. They may be changed.

    The loop makes a closure for one batch; a further batch needs the same closure with other arguments.
    """
    inputs: dict[str, Any] = closure._step_fn.args[0]  # type: ignore[attr-defined]
    return inputs


def set_step_result(closure: Closure, loss: Tensor | None, extra: dict[str, Any] | None = None) -> None:
    """Set the loss () that the loop gets from a closure, and other values by name.

    None as a loss frees the result of its newest call. Lightning sets the result only when the closure is called, which
    a replayed CUDA graph and a `DirectStep` do not do.
    """
    closure._result = None if loss is None else ClosureResult(loss, extra=extra or {})


def checkpoint_interval(callback: ModelCheckpoint) -> int:
    """Return after how many optimizer steps each a ModelCheckpoint saves; 0 for never within an epoch.

    Of its intervals, only `every_n_epochs` is public.
    """
    return callback._every_n_train_steps


# attributes that are set in each step: the name of the current hook, and the loss
QUICK = {"_current_fx_name", "loss"}


class QuickHooksModule(LightningModule):
    """A LightningModule whose hooks cost less to call.

    Lightning notes the name of the current hook in an attribute of the module, some forty times a step, by the slow
    `__setattr__` of `nn.Module`. It has no option to leave that out.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in QUICK:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


# --- the processes of a distributed run -------------------------------------------------------------------------------


class ChildProcessObserver(_ChildProcessObserver):
    """Lightning's thread that kills all processes of a run once one of them has failed, with a hook before that.

    Lightning's own thread leaves the first process no time to report the failure.
    """

    def on_lost(self) -> None:
        """Called before all processes are killed, the current one last."""

    def _terminate_all(self) -> None:
        self.on_lost()
        super()._terminate_all()


def replace_process_observer(start: Callable[[list[subprocess.Popen[bytes]]], None]) -> None:
    """Set what Lightning calls with the processes that it has launched. Its launcher has no parameter for it."""
    subprocess_script._launch_process_observer = start  # type: ignore[attr-defined, assignment]


def process_observer() -> Callable[[list[subprocess.Popen[bytes]]], None]:
    """Return what Lightning calls with the processes that it has launched."""
    return subprocess_script._launch_process_observer  # type: ignore[attr-defined]
