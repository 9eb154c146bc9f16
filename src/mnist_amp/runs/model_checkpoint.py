"""The checkpoints of a run: `best.ckpt` and `last.ckpt` are written here."""

import contextlib
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_amp.errors import RunError
from mnist_amp.lightning_internals import batches_since_validation, begin_next_epoch, end_restart, unfinished_epoch
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.atomic_files import atomic_write, describe_write_errors
from mnist_amp.runs.checkpoint_contents import CALLBACK_KEY, EpochMetrics, history
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.signals import Stopped, StopRequest

TRAINED, VALIDATED = ("train_loss", "train_accuracy"), ("val_loss", "val_accuracy")


class RunCheckpoint(ModelCheckpoint):
    """Writes `best.ckpt` and `last.ckpt` to the run's folder. Both hold the metrics of each epoch so far.

    `best.ckpt` has the highest validation accuracy; if two are equal, it is the earlier. Without validation it is the
    newest. A resumed run starts with the metrics and the best checkpoint of the earlier run. `last.ckpt` is written at
    the end of each epoch, every `every_n_train_steps` steps, and when a signal asks the run to stop. It is always
    written between two optimizer steps.

    Args:
        run: the callback that creates the run's folder.
        every_n_train_steps: optimizer steps between two `last.ckpt` within an epoch; 0 for none.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> run = RunFolder(Path(), config="")
        >>> trainer = Trainer(callbacks=[run, RunCheckpoint(run, every_n_train_steps=500)], logger=False)
    """

    once_per_execution = True

    def __init__(self, run: RunFolder, every_n_train_steps: int = 0) -> None:
        super().__init__(filename="best", monitor="val_accuracy", mode="max", enable_version_counter=False)
        self.run, self.save_every = run, every_n_train_steps
        self.stop = StopRequest()
        self.history: list[EpochMetrics] = []
        self.validated: dict[str, Tensor] = {}  # metrics of this epoch's newest validation

    @property
    def state_key(self) -> str:
        return CALLBACK_KEY

    @property
    def best(self) -> Path:
        return self.run.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.best.with_name("last.ckpt")

    def resume_command(self) -> str:
        """Return the command that resumes from `last`, with its path and the same root folder."""
        root = "" if self.run.root == Path() else f" --trainer.default_root_dir {shlex.quote(str(self.run.root))}"
        return f"mnist-amp fit{root} --ckpt_path {shlex.quote(str(self.last))}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(self.best.parent)
        super().setup(trainer, pl_module, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.stop.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.stop.restore()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not earlier: before this there is nothing to save
        self.stop.install()
        if sum(trainer.num_val_batches) == 0:
            self.monitor = None
        # the rest of a resumed epoch may have no validation; reports and ReduceLROnPlateau need these metrics
        trainer.callback_metrics.update(self.validated)
        if self.history and self.history[-1].step == trainer.global_step:
            self._catch_up_with_plateaus(trainer)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # No checkpoint
        # - after an epoch's last batch: Lightning can resume from it only once, and the end of the epoch writes another
        # - before a validation that is due: a resumed run would skip it
        # - while gradients are accumulated: no checkpoint holds them
        validation_is_due = batches_since_validation(trainer) == 0
        if trainer.is_last_batch or validation_is_due or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, every = trainer.global_step, trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if step % every == 0:
            self._check_folder(trainer)  # before the loggers fail because of it
        # several processes must communicate to find out, so they do it rarely
        requested = (trainer.world_size == 1 or step % every == 0) and self._is_stop_requested(trainer)
        if requested or (self.save_every and step % self.save_every == 0):
            self._save_last(trainer)
        if requested:
            self._stop_or_requeue(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = _metrics(trainer, VALIDATED)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # otherwise Lightning skips the step of ReduceLROnPlateau at the end of a resumed epoch
        end_restart(trainer)
        metrics = {name: value.item() for name, value in (_metrics(trainer, TRAINED) | self.validated).items()}
        row = EpochMetrics(trainer.current_epoch, trainer.global_step, **metrics)
        if trainer.is_last_batch:
            self.history.append(row)
            self.validated = {}
        with contextlib.nullcontext() if trainer.is_last_batch else unfinished_epoch(trainer):
            super().on_train_epoch_end(trainer, pl_module)
            # ModelCheckpoint's own save_last skips epochs that are not the best
            self._save_last(trainer)
        if not trainer.is_last_batch:
            self.history.append(row)  # for the curves of this run; a resumed run completes the epoch
        if self._is_stop_requested(trainer) and not trainer.fit_loop.done:
            self._stop_or_requeue(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero and self.last.is_file() and not self.best.is_file():
            _copy(self.last, self.best)  # stopped before the first validation

    def state_dict(self) -> dict[str, Any]:
        # plain values, because checkpoints are loaded with weights_only=True
        rows = [row.to_dict() for row in self.history]
        return {"history": rows, "best_model_score": self.best_model_score, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [EpochMetrics.from_dict(row) for row in state_dict["history"]]
        self.validated = state_dict.get("validated", {})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Copy the best checkpoint so far into this run's folder."""
        if trainer.max_steps != -1:
            begin_next_epoch(checkpoint["loops"]["fit_loop"])
        source = checkpoint_files.source_run_dir(Path(str(trainer.ckpt_path)), checkpoint) / "checkpoints" / "best.ckpt"
        best = checkpoint_files.read(source) if source.is_file() else None
        if best is None or not self._precedes(best, checkpoint):
            return
        if trainer.is_global_zero:
            _copy(source, self.best)
        self.best_model_path = self.kth_best_model_path = str(self.best)
        score = best["callbacks"][self.state_key]["best_model_score"]
        if score is not None:
            self.best_model_score = self.kth_value = score
            self.best_k_models = {str(self.best): score}

    def forget_best(self) -> None:
        """Let the next validation write `best.ckpt`, whatever the metrics before it."""
        self.best_model_score = None
        self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""

    def _is_stop_requested(self, trainer: Trainer) -> bool:
        """Whether any process was asked to stop or to requeue. Then all must do it after the same step."""
        return _any(trainer, self.stop.signum is not None or self.stop.requeue)

    def _stop_or_requeue(self, trainer: Trainer) -> None:
        if _any(trainer, self.stop.requeue):
            self.stop.do_requeue()  # SLURM may then send a signal to stop
        if _any(trainer, self.stop.signum is not None):
            raise Stopped(
                self.stop.signum or signal.SIGTERM,
                f"after step {trainer.global_step:,}. Its checkpoint is written. Resume with: {self.resume_command()}",
            )

    def _save_last(self, trainer: Trainer) -> None:
        self._check_folder(trainer)
        with describe_write_errors(self.run.path):
            for logger in trainer.loggers:
                logger.save()  # the rows up to a checkpoint must survive a crash after it
        trainer.save_checkpoint(self.last, weights_only=False)

    def _check_folder(self, trainer: Trainer) -> None:
        if self.run.path.is_dir():
            return
        trainer.save_checkpoint(self.last, weights_only=False)
        raise RunError(
            f"{self.run.path} was removed during the run, so the run is stopped. A checkpoint of step "
            f"{trainer.global_step:,} was written there again. Resume with: {self.resume_command()}"
        )

    def _precedes(self, best: dict[str, Any], checkpoint: dict[str, Any]) -> bool:
        """Whether `best` is from the run of `checkpoint`, and not from a later step or from another run."""
        if self.state_key not in best["callbacks"] or best["global_step"] > checkpoint["global_step"]:
            return False
        past = history(best)
        return history(checkpoint)[: len(past)] == past

    def _catch_up_with_plateaus(self, trainer: Trainer) -> None:
        """Take the step of ReduceLROnPlateau that Lightning takes after an epoch's checkpoint, but not on resume.

        The metrics are those of the last epoch in the history.
        """
        metrics = self.history[-1].to_dict()
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in metrics:
                config.scheduler.step(metrics[config.monitor])  # type: ignore[arg-type]


def _metrics(trainer: Trainer, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: trainer.callback_metrics[name] for name in names if name in trainer.callback_metrics}


def _any(trainer: Trainer, here: bool) -> bool:
    return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
