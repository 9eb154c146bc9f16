"""Fits that write nothing and are measured, each in a process of its own, and the command line of what runs them."""

import contextlib
import gc
import itertools
import json
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ClassVar, cast

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from mnist_amp.cli import settings
from mnist_amp.cli.command import CommandCLI
from mnist_amp.cli.error_messages import describe_error
from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare
from mnist_amp.errors import RequestError, RunError
from mnist_amp.measuring.memory import memory
from mnist_amp.training.gradient_scaler import ScalerSettings, scaler_of
from mnist_amp.training.precision import described_precision, device_name, half_hardware, versions
from mnist_amp.training.resumable_module import ResumableModule
from mnist_amp.training.terminate_on_nan import TerminateOnNaN

# what a fit does beside training, and would be measured with it
BARE: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 0,
}
WARMUP = 20  # optimizer steps, or half of the time that is measured if that is over sooner
# a fit that goes on until it is told to end
ENDLESS: dict[str, Any] = {
    **{"max_epochs": -1, "max_steps": -1, "max_time": None, "min_epochs": None, "min_steps": None},
    **{"fast_dev_run": False, "barebones": False, "profiler": None, "limit_val_batches": 0},
}
POINTS = 100  # of a loss curve


class FitsCLI(CommandCLI):
    """The command line of a command that runs fits: the options of `fit`, but for checkpoints, and its own."""

    like = "fit"
    unused: ClassVar = {"ckpt_path", "weights_only"}

    def add_command_arguments(self) -> None:
        self.subcommand_parsers["fit"].add_class_arguments(ScalerSettings, "scaler")
        super().add_command_arguments()

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = parser.parse_args(args)
        config = self.config["fit"]
        settings.check(config.as_dict())
        if config.trainer.devices not in (1, "1") or config.trainer.num_nodes != 1:
            raise RequestError(f"{self.name} measures one device; leave trainer.devices and trainer.num_nodes at 1.")
        if isinstance(config.seed_everything, bool):
            raise RequestError(f"{self.name} needs a number as seed_everything, to repeat what it does.")

    def fit_settings(self) -> dict[str, Any]:
        """Return the settings of the fits as plain values, which a `--config` of `fit` takes."""
        text = self.subcommand_parsers["fit"].dump(self.config["fit"], skip_unset=False)
        return {key: value for key, value in yaml.safe_load(text).items() if key not in self.own}


class MeasuredFit(MnistAmpCLI):
    """A fit that writes nothing; it runs when it is made.

    Args:
        config: settings, as `FitsCLI.fit_settings` returns them.
        changed: options that go before them, by name.
        callbacks: that measure it.
        trainer: settings of the Trainer that go before all.
    """

    def __init__(
        self, config: dict[str, Any], changed: dict[str, Any], callbacks: list[Callback], **trainer: Any
    ) -> None:
        self.measuring, self.replaced = callbacks, trainer
        options = (
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()
        )
        super().__init__(["fit", f"--config={json.dumps(config)}", *options])

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return self.make_trainer(self.measuring, **(BARE | self.replaced))


class StepTimer(Callback):
    """Measures optimizer steps for a while, after some for warm-up, and then ends the fit.

    Attributes:
        record: seconds a step, with what the loop around it costs; how many steps that is the mean of; seconds that
            getting a step's images takes, measured apart; and the memory, see `memory`.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.clock = seconds, clock
        self.begun = self.started = 0.0
        self.first = 0
        self.record: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = self.clock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self.started and self._is_warm(trainer, pl_module):
            self.first, self.started = trainer.global_step, self._now(trainer)
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = trainer.global_step - self.first
        if not self.started or self.record or steps == 0 or self.clock() - self.started < self.seconds:
            return
        self.record = {"seconds": (self._now(trainer) - self.started) / steps, "steps": steps}
        self.record["memory"] = memory(trainer, pl_module, batch)
        self.record["data_seconds"] = self._data_seconds(trainer) * trainer.accumulate_grad_batches
        trainer.should_stop = True

    def _is_warm(self, trainer: Trainer, module: LightningModule) -> bool:
        steps, execution = trainer.global_step, cast(ResumableModule, module).execution
        if execution.steps > 1 and execution.reason is None:
            return trainer.current_epoch >= 3  # by then each CUDA graph was captured
        return steps >= 3 and (steps >= WARMUP or self.clock() - self.begun > self.seconds / 2)

    def _now(self, trainer: Trainer) -> float:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()

    def _data_seconds(self, trainer: Trainer) -> float:
        loader: Any = trainer.train_dataloader
        loader.position = lambda: (0, 0)  # or it would go on from where training is
        started = self._now(trainer)
        count = sum(1 for _ in itertools.islice(loader, self.record["steps"]))
        return (self._now(trainer) - started) / count


class LossCurve(Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses += cast(ResumableModule, pl_module).train_means.losses().tolist()

    def points(self) -> list[tuple[float, float]]:
        """Return at most 100 points: the mean loss of so many steps in a row, at the middle one of them."""
        size = -(-len(self.losses) // POINTS) or 1
        parts = [(start, self.losses[start : start + size]) for start in range(0, len(self.losses), size)]
        return [(start + (len(part) + 1) / 2, sum(part) / len(part)) for start, part in parts]


def speed(config: dict[str, Any], changed: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Measure a step of a fit with these settings for some seconds; see `StepTimer.record`."""
    timer = StepTimer(seconds)
    fit = MeasuredFit(config, changed, [timer], **ENDLESS)
    if not timer.record:
        raise RunError("the fit ended before it was measured; leave out the callback that ends it")
    circumstances, graphs = _circumstances(fit.trainer), fit.model.execution.outcome()
    del fit
    if graphs is not None:
        circumstances["not_captured"] = graphs.reason
        timer.record["memory"] = _memory_step_by_step(config, changed)
    return {**circumstances, **timer.record}


def _memory_step_by_step(config: dict[str, Any], changed: dict[str, Any]) -> dict[str, int | None]:
    """Return the memory of steps that are not captured: a graph's activations are not counted by the allocator."""
    gc.collect()  # the fit before
    torch.cuda.empty_cache()
    timer = StepTimer(0.0)
    MeasuredFit(config, {**changed, "model.steps_per_execution": 1}, [timer], **ENDLESS)
    memory: dict[str, int | None] = timer.record["memory"]
    return memory


def accuracy(config: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Carry out a fit with these settings; returns its accuracy (0 to 1), loss curve, and what its loss scale did."""
    curve = LossCurve()
    fit = MeasuredFit(config, changed, [TerminateOnNaN(None), curve])
    metrics, scaler = fit.trainer.callback_metrics, scaler_of(fit.trainer)
    name = "val_accuracy" if "val_accuracy" in metrics else "train_accuracy"
    scaling = {} if scaler is None else {"loss_scale": scaler.get_scale(), "skipped_steps": scaler.skipped()}
    return {
        **_circumstances(fit.trainer),
        "accuracy": metrics[name].item(),
        "of": name,
        "steps": fit.trainer.global_step,
        "curve": curve.points(),
        **scaling,
    }


def isolated(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Call a function in a process of its own, whose state no other call sees; it starts with all imported already.

    Raises:
        RequestError: the function refuses what is asked for.
        RunError: it failed, or its process died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise RunError(f"the process died with exit status {process.exitcode}, for want of memory perhaps") from None
    except BaseException:
        process.kill()
        raise
    process.join()
    if isinstance(result, Exception):
        raise result
    answer: dict[str, Any] = result
    return answer


def _answer(sender: Connection, function: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it comes to the parent, too, which ends this process
    prepare()
    answer: dict[str, Any] | Exception
    try:
        answer = function(*args)
    except Exception as error:
        text, status = describe_error(error)
        answer = RequestError(text) if status == 2 else RunError(text)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        sender.send(answer)


def _circumstances(trainer: Trainer) -> dict[str, Any]:
    return {
        "effective": described_precision(trainer),
        "device": device_name(trainer),
        "half_hardware": half_hardware(trainer),
        "versions": versions(),
    }
