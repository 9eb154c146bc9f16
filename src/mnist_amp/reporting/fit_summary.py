"""The callback that ends a fit: it writes `model.pth` and `curves.png`, and prints a summary."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from mnist_amp.reporting import plots
from mnist_amp.reporting.tables import facts
from mnist_amp.runs import checkpoint_contents, checkpoint_files
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.runs.checkpoint_contents import EpochMetrics
from mnist_amp.runs.guarded_logger import Guarded
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.runs.trackers import run_id
from mnist_amp.runs.weights_file import describe as describe_weights
from mnist_amp.runs.weights_file import with_metadata
from mnist_amp.training.averaged_weights import TRAINED_WEIGHTS, average_name
from mnist_amp.training.callback_progress import Ending, ending
from mnist_amp.training.compilation import Compilation, CompileUse
from mnist_amp.training.execution import Execution, GraphUse
from mnist_amp.training.metrics import EpochMeans
from mnist_amp.wording import counted

FILES = ("model.pth", "curves.png", "metrics.csv", "checkpoints/", "config.yaml")


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Attributes:
        accuracy: of the weights in `model.pth`, 0 to 1; None if it is unknown.
        images_of: the images of the accuracy: `validation`, or `training` if no images were held out.
        epochs: the completed epochs of these weights; None if no checkpoint was written.
        average: the callback whose averaged weights these are; None for the trained weights.
        ended: why a callback ended the fit, and after which step; None if none did.
        images: the number of training images that were processed, in all epochs.
        seconds: the time of training, validation and checkpoints, without the start-up and the time of compiling.
        data_seconds: the part of it that was spent waiting for training images; None if it is unknown.
        graphs: the optimizer steps that were replayed as CUDA graphs; None if there were none to capture.
        compiled: what was compiled, and how long that took; None if nothing was to be.
        device_memory: the peak of the bytes that tensors took on the GPU; None on a CPU.
        folder: the folder of the run.
        files: the most important files in it.
        next_steps: commands that may be useful now.
        logs: the folders of loggers that do not log to the run's folder.
    """

    accuracy: float | None
    images_of: Literal["validation", "training"]
    epochs: int | None
    average: str | None
    ended: str | None
    images: int
    seconds: float
    data_seconds: float | None
    graphs: GraphUse | None
    compiled: CompileUse | None
    device_memory: int | None
    folder: str
    files: list[str]
    next_steps: list[str]
    logs: tuple[str, ...] = ()


class FitSummary(Callback):
    """Writes `model.pth` and `curves.png` at the end of a fit that wrote checkpoints, and prints a summary.

    The metrics are printed before the files are written, and the names of the files after that.

    Args:
        run: the folder of the run.
        checkpoint: the callback that writes the checkpoints; None if no checkpoints are written.
        next_steps: returns the commands to suggest after a fit, which a callback may have ended.
    """

    def __init__(
        self, run: RunFolder, checkpoint: RunCheckpoint | None, next_steps: Callable[[Ending | None], list[str]]
    ) -> None:
        self.run, self.checkpoint, self.next_steps = run, checkpoint, next_steps
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.started

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        best, printed = None, ""
        try:
            if self.checkpoint is not None and self.checkpoint.best.is_file():
                best = checkpoint_files.read(self.checkpoint.best)
            text = self._text(trainer, pl_module, best)
            printed = text[: text.index("\nfiles ") + 1]
            print(printed, end="", flush=True)  # first, because to draw takes time, and files may fail to be written
            if best is not None and self.checkpoint is not None:
                self._write(trainer, best, self.checkpoint.history)
        finally:
            print(self._text(trainer, pl_module, best).removeprefix(printed), flush=True)

    def _text(self, trainer: Trainer, pl_module: LightningModule, best: dict[str, Any] | None) -> str:
        return describe(self._result(trainer, pl_module, best))

    def _write(self, trainer: Trainer, best: dict[str, Any], history: list[EpochMetrics]) -> None:
        saved = best["state_dict"].items()
        weights = {key.removeprefix("model."): value for key, value in saved if key.startswith("model.")}
        network = best.get("hyper_parameters", {}).get("network")  # a module of another kind has none
        if network is not None:
            weights = with_metadata(weights, describe_weights(network, trainer.datamodule))  # type: ignore[attr-defined]
        with atomic_write(self.run.path / "model.pth") as temporary:
            torch.save(weights, temporary)
        with atomic_write(self.run.path / "curves.png") as temporary:
            plots.curves([row.to_dict() for row in history], temporary)

    def _result(self, trainer: Trainer, pl_module: LightningModule, best: dict[str, Any] | None) -> FitResult:
        accuracy, images_of = self._accuracy()
        end = ending(trainer)
        device, graphs = trainer.strategy.root_device, cast(Execution, pl_module.execution).outcome()
        compilation = cast(Compilation | None, pl_module.compilation)
        compiled = None if compilation is None else compilation.use()
        return FitResult(
            accuracy=accuracy,
            images_of=images_of,
            epochs=None if best is None else checkpoint_contents.progress(best).epochs,
            average=None if best is None or TRAINED_WEIGHTS not in best else average_name(trainer),
            ended=None if end is None else f"after step {trainer.global_step:,} by {end.reason}",
            images=cast(EpochMeans, pl_module.train_means).seen * trainer.world_size,
            seconds=self.seconds - (0 if compiled is None else compiled.seconds),
            # a DataLoader of the user's own does not measure it
            data_seconds=getattr(trainer.train_dataloader, "seconds", None),
            graphs=graphs,
            compiled=compiled,
            device_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            folder=str(self.run.path),
            files=[name for name in FILES if (self.run.path / name).exists()],
            next_steps=self.next_steps(end),
            logs=tuple(_place_of(each) for each in trainer.loggers if not _is_in(each, self.run.path)),
        )

    def _accuracy(self) -> tuple[float | None, Literal["validation", "training"]]:
        """Return the accuracy of the best checkpoint and the images that it was measured on."""
        checkpoint = self.checkpoint
        if checkpoint is not None and checkpoint.monitor is not None and checkpoint.best_model_score is not None:
            return checkpoint.best_model_score.item(), "validation"
        return checkpoint.history[-1].train_accuracy if checkpoint and checkpoint.history else None, "training"


def describe(result: FitResult) -> str:
    """Lay out the result of a fit for the terminal."""
    seconds = max(result.seconds, 1e-9)
    waiting = "" if result.data_seconds is None else f"; {result.data_seconds / seconds:.1%} spent waiting for data"
    lines = {
        **({} if result.ended is None else {"ended": result.ended}),
        "accuracy": _accuracy_text(result),
        "time": f"{seconds:.1f} s, {result.images / seconds:,.0f} samples/s "
        f"(training, validation and checkpoints{waiting})",
    }
    if result.graphs is not None:
        lines["execution"] = _graphs_text(result.graphs)
    if result.compiled is not None:
        lines["compiled"] = str(result.compiled)
    if result.device_memory is not None:
        lines["memory"] = f"at most {result.device_memory / 1e6:,.0f} MB on the GPU"
    lines["files"] = f"{result.folder}/ ({', '.join(result.files)})"
    if result.logs:
        lines["logs"] = ", ".join(result.logs)
    if result.next_steps:
        lines["next"] = ("\n" + " " * (max(map(len, lines)) + 2)).join(result.next_steps)
    return "\n" + facts(lines)


def _accuracy_text(result: FitResult) -> str:
    text = "unknown" if result.accuracy is None else f"{result.accuracy:.2%} on the {result.images_of} images"
    if result.epochs is None:
        return text
    weights = "best checkpoint" if result.images_of == "validation" else "no validation; newest weights"
    average = "" if result.average is None else f"; weights averaged by {result.average}"
    return f"{text} ({weights}, after {counted(result.epochs, 'epoch')}{average})"


def _graphs_text(graphs: GraphUse) -> str:
    text = f"{graphs.replayed:,} of {graphs.taken:,} optimizer steps replayed as CUDA graphs"
    if graphs.replayed == graphs.taken:
        return text
    how = f"one after the other because {graphs.reason}" if graphs.reason else "before the capture"
    return f"{text}; {'the others' if graphs.replayed else 'all'} ran {how}"


def _is_in(logger: Logger, folder: Path) -> bool:
    """Whether a logger writes its files to a folder itself, as the default loggers do with that of the run."""
    return logger.log_dir is not None and Path(logger.log_dir) == folder


def _place_of(logger: Logger) -> str:
    """Return where a logger writes: the tracker's run, or its folder, or nothing but its name if it has none."""
    if isinstance(logger, Guarded) and logger.failed:
        return f"{type(logger).__name__} (failed)"
    if (run := run_id(logger)) is not None:
        return f"{type(logger).__name__}, run {run}"
    folder = logger.log_dir or logger.save_dir
    return type(logger).__name__ if folder is None else f"{folder}/ ({type(logger).__name__})"
