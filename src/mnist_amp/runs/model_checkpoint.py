"""The checkpoints of a run."""

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
from mnist_amp.runs.atomic_files import atomic_write, writing
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.signals import Stopped, StopRequest

TRAINED, VALIDATED = ("train_loss", "train_accuracy"), ("val_loss", "val_accuracy")


class RunCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt` and `last.ckpt` in the run's folder and, in them, the run's figures by epoch.

    The best is that of the highest validation accuracy, the earlier of two equals; without validation it is the newest.
    A run that goes on from a checkpoint goes on from its figures and its best, too. `last.ckpt` is written at each
    epoch's end, every so many steps, and when a signal asks the run to stop; always between two optimizer steps.

    Args:
        run: the run's folder.
        every_n_train_steps: how often to write `last.ckpt` within an epoch; 0 for never.
    """

    def __init__(self, run: RunFolder, every_n_train_steps: int = 0) -> None:
        super().__init__(filename="best", monitor="val_accuracy", mode="max", enable_version_counter=False)
        self.run, self.every = run, every_n_train_steps
        self.stop = StopRequest()
        self.history: list[dict[str, float]] = []
        self.validated: dict[str, Tensor] = {}  # figures of this epoch's newest validation

    @property
    def state_key(self) -> str:
        return type(self).__name__

    @property
    def best(self) -> Path:
        return self.run.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.best.with_name("last.ckpt")

    def resume_command(self) -> str:
        """Return the command that goes on from `last`, named in full, and in the same place."""
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
        # not earlier: until now there is nothing to save
        self.stop.install()
        if sum(trainer.num_val_batches) == 0:
            self.monitor = None
        # as the rest of an epoch may have no validation of its own; a schedule that follows one needs them, too
        trainer.callback_metrics.update(self.validated)
        if self.history and self.history[-1]["step"] == trainer.global_step:
            self._catch_up_with_plateaus(trainer)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # an epoch's last batch is left to the epoch's end, whose checkpoint Lightning can go on from more than once;
        # gradients that are still accumulated are in no checkpoint, and a validation that is due would be left out
        validates = batches_since_validation(trainer) == 0
        if trainer.is_last_batch or validates or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, every = trainer.global_step, trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if step % every == 0:
            self._check_folder(trainer)  # before the loggers fail on it
        # several processes ask each other, and so wait for each other, now and then only
        asked = (trainer.world_size == 1 or step % every == 0) and self._asked(trainer)
        if asked or (self.every and step % self.every == 0):
            self._save_last(trainer)
        if asked:
            self._answer(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = _figures(trainer, VALIDATED)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # or Lightning leaves out a ReduceLROnPlateau's step at the end of an epoch that was resumed
        end_restart(trainer)
        figures = {name: value.item() for name, value in (_figures(trainer, TRAINED) | self.validated).items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **figures}
        if trainer.is_last_batch:
            self.history.append(row)
            self.validated = {}
        with contextlib.nullcontext() if trainer.is_last_batch else unfinished_epoch(trainer):
            super().on_train_epoch_end(trainer, pl_module)
            # ModelCheckpoint's own save_last leaves out the epochs that are not the best
            self._save_last(trainer)
        if not trainer.is_last_batch:
            self.history.append(row)  # for the curves of this run; the next one ends the epoch
        if self._asked(trainer) and not trainer.fit_loop.done:
            self._answer(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero and self.last.is_file() and not self.best.is_file():
            _copy(self.last, self.best)  # stopped before the first validation

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best_model_score": self.best_model_score, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.validated = state_dict["history"], state_dict.get("validated", {})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Carry the best so far over into this run's folder."""
        if trainer.max_steps != -1:
            begin_next_epoch(checkpoint["loops"]["fit_loop"])
        source = checkpoint_files.origin(Path(str(trainer.ckpt_path)), checkpoint) / "checkpoints" / "best.ckpt"
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

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any process was asked to stop or to requeue; then all must, after the same step."""
        return _any(trainer, self.stop.signum is not None or self.stop.requeue)

    def _answer(self, trainer: Trainer) -> None:
        if _any(trainer, self.stop.requeue):
            self.stop.do_requeue()  # upon which SLURM may ask to stop
        if _any(trainer, self.stop.signum is not None):
            raise Stopped(
                self.stop.signum or signal.SIGTERM,
                f"after step {trainer.global_step:,}; its checkpoint is written. Go on with: {self.resume_command()}",
            )

    def _save_last(self, trainer: Trainer) -> None:
        self._check_folder(trainer)
        with writing(self.run.path):
            for logger in trainer.loggers:
                logger.save()  # what was logged before a checkpoint is not to be lost with what comes after it
        trainer.save_checkpoint(self.last, weights_only=False)

    def _check_folder(self, trainer: Trainer) -> None:
        if self.run.path.is_dir():
            return
        trainer.save_checkpoint(self.last, weights_only=False)
        raise RunError(
            f"{self.run.path} was removed while the run wrote to it, so the run is stopped. A checkpoint of step "
            f"{trainer.global_step:,} is there again. Go on with: {self.resume_command()}"
        )

    def _precedes(self, best: dict[str, Any], checkpoint: dict[str, Any]) -> bool:
        """Whether `best` is of the run that led to `checkpoint`, and not of what came after it or of another run."""
        if self.state_key not in best["callbacks"] or best["global_step"] > checkpoint["global_step"]:
            return False
        past = best["callbacks"][self.state_key]["history"]
        return bool(checkpoint.get("callbacks", {}).get(self.state_key, {}).get("history", [])[: len(past)] == past)

    def _catch_up_with_plateaus(self, trainer: Trainer) -> None:
        """Take the step of a ReduceLROnPlateau that Lightning takes after an epoch's checkpoint, but not on resuming.

        The figures are those of the last epoch in the history.
        """
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in self.history[-1]:
                config.scheduler.step(self.history[-1][config.monitor])  # type: ignore[arg-type]


def _figures(trainer: Trainer, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: trainer.callback_metrics[name] for name in names if name in trainer.callback_metrics}


def _any(trainer: Trainer, said: bool) -> bool:
    return said if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(said, all=False)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as draft:
        shutil.copyfile(source, draft)
