"""The LightningCLI: fit, validate, test and predict."""

import logging
import os
import secrets
import threading
import warnings
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, LRSchedulerTypeTuple
from torch.optim import Optimizer

from mnist_amp import signals
from mnist_amp.cli import help_texts, processes, settings
from mnist_amp.cli.arguments import DEBUG, peek, source
from mnist_amp.cli.error_messages import translate_error
from mnist_amp.data import MNISTDataModule, mnist
from mnist_amp.errors import RequestError, RunError, UsageError, warn
from mnist_amp.lightning_internals import is_restoring
from mnist_amp.module import LitSimpleNN
from mnist_amp.reporting.banner import Banner
from mnist_amp.reporting.evaluation_report import EvaluationReport
from mnist_amp.reporting.fit_summary import FitSummary
from mnist_amp.reporting.prediction_writer import PredictionWriter
from mnist_amp.reporting.progress_bar import ProgressBar
from mnist_amp.runs import checkpoint_files, folders, resume
from mnist_amp.runs.checkpoint_io import AtomicCheckpointIO
from mnist_amp.runs.config_text import to_yaml
from mnist_amp.runs.logged_rows import LoggedRows
from mnist_amp.runs.model_checkpoint import RunCheckpoint
from mnist_amp.runs.random_states import RandomStates
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.runs.trust import trusted
from mnist_amp.training import gradient_scaler
from mnist_amp.training.execution import WITHIN
from mnist_amp.training.gradient_scaler import ScalerSettings
from mnist_amp.training.loss_scale_monitor import LossScaleMonitor
from mnist_amp.training.optimizers import ADAM
from mnist_amp.training.preflight import Preflight
from mnist_amp.training.schedules import annotate_nested_schedules
from mnist_amp.training.terminate_on_nan import TerminateOnNaN
from mnist_amp.wording import counted

# the guide's, on one device however many there are; the banner has what the model summary says
TRAINER_DEFAULTS = {"max_epochs": 5, "precision": "16-mixed", "devices": 1, "enable_model_summary": False}

# what the banner says already, or what does not apply to data in memory
SILENCED = (
    r".*Please use the new API settings to control TF32.*",  # Lightning's own question to torch 2.9 to 2.11
    r".*AMP with fp16 is not supported on CPU.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*Experiment logs directory .* exists and is not empty.*",  # it is new, and holds config.yaml only
    r".*callbacks used to create the checkpoint need to be provided.*",  # what only fit needs
    r".*monitor='val_accuracy'.* could not find the monitored key.*",  # an epoch without validation
    r".*Total length of `list` across ranks is zero.*",  # no validation images, as asked
    r".*It is recommended to use `self.log\(.*sync_dist=True.*",  # what is logged is all processes' already
    r".*torch.distributed.nn.functional.all_gather is deprecated.*",  # Lightning's own use of torch
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning's own use of torch
)
QUIETED = (
    "lightning.fabric.strategies.launchers.subprocess_script",  # `processes` says it
    "lightning.fabric.utilities.distributed",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.utilities.rank_zero",
)


class Parser(LightningArgumentParser):
    """Says a mistake in a line, where jsonargparse prints all options before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # of a part, such as an optimizer's options: the whole's complaint will have it
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        raise translate_error(message, parser._option_string_actions)


class MnistAmpCLI(LightningCLI):
    """Lightning's command line over LitSimpleNN and MNISTDataModule.

    A command that starts from a checkpoint takes over settings of its run, see `resume`. What is given anew, by file,
    environment or command line, is stronger.

    Args:
        args: the command and its arguments, as `arrange` puts them in order.
    """

    name = ""  # of the command, where that is another than Lightning's

    def __init__(self, args: list[str]) -> None:
        self.command = args[0]
        self.name = self.name or self.command
        self.checkpoint: dict[str, Any] | None = None
        self.taken_over: dict[str, Any] = {}  # settings, from the checkpoint
        self.inherited = ""  # an argument with the checkpoint's settings
        self.changes: list[str] = []
        super().__init__(
            LitSimpleNN,
            MNISTDataModule,
            save_config_callback=None,  # RunFolder does it
            seed_everything_default=42,
            parser_kwargs={
                "prog": "mnist-amp",
                "allow_abbrev": False,
            },
            parser_class=Parser,
            auto_configure_optimizers=False,  # the module makes them, of what it is given as plain values
            load_from_checkpoint_support=False,  # the hyperparameters are plain values already
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # the one that is asked for, as making the options of one takes a tenth of a second
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help="Seed of the weights, of the order of the images and of the split; true draws one, false leaves the "
            "weights to chance.",
        )
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="Of float32 matrix products: highest is float32; high and medium use TF32 on a GPU that has it.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        annotate_nested_schedules()
        parser.add_lightning_class_args(LitSimpleNN, "model")
        parser.add_lightning_class_args(MNISTDataModule, "data")
        parser.add_optimizer_args((Optimizer,), "optimizer")
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple, "lr_scheduler")
        for key in ("optimizer", "lr_scheduler"):
            parser.link_arguments(key, f"model.{key}", compute_fn=as_dict)
        # the Trainer's many options come last, so that --help begins with what is this project's own
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({"optimizer": ADAM} | {f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        self.add_command_arguments()

    def train_size(self) -> int:
        """Return how many images a fit of these settings trains on."""
        return mnist.TRAIN_SIZE - int(self.config[self.subcommand].data.val_size)

    def add_command_arguments(self) -> None:
        """Add what the command takes beside the options of all."""
        parser = self._subcommand_parsers[self.command]
        if self.command == "fit":
            parser.add_argument(
                "--checkpoint.every_n_train_steps",
                type=int,
                default=500,
                help="Optimizer steps between two checkpoints within an epoch; 0 for one at its end only.",
            )
            parser.add_class_arguments(ScalerSettings, "scaler")
        if self.command in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # EvaluationReport prints the figures
        help_texts.describe(self._subcommand_parsers)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        try:
            self._parse(parser, args)
        except UsageError as error:
            text = str(error).removeprefix('Parser key "config": ')
            key = error.key or text.partition(" ")[0]
            where = source(args, os.environ, key, text)
            if where is None and peek(args, key) is None and peek([self.inherited], key) is not None:
                where = "the checkpoint"
            raise RequestError(
                f"{text}{f' It is set by {where}.' if where else ''} See mnist-amp {self.name} --help."
            ) from error

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> None:
        subcommand, own = args[0], args[1:]
        only_prints = any(arg.startswith(("--help", "-h", "--print_config")) for arg in own)
        root = Path(str(peek(own, "trainer.default_root_dir") or "."))
        usual = None if only_prints else checkpoint_files.requeued(root) if subcommand == "fit" else "best"
        given = peek(own, "ckpt_path")
        if given == "":
            raise UsageError("ckpt_path is empty; name a checkpoint, or leave it out.", "ckpt_path")
        if given == "null" and subcommand != "fit" and not only_prints:
            raise UsageError(
                f"ckpt_path is null, but {self.name} needs a checkpoint; leave it out for the newest run's best.",
                "ckpt_path",
            )
        wanted = given or usual
        if wanted in (None, "null"):
            self.config = parser.parse_args(args)
        else:
            self._parse_over(self._find_checkpoint(str(wanted), root, subcommand), args)
        config = self.config[subcommand]
        for name in settings.LIMITS:
            # Lightning declares them as `float | int`, by which the parser makes 1.0 of 1
            if isinstance(config.trainer[name], float) and str(peek(own, f"trainer.{name}")) == "1":
                warn(f"trainer.{name} is 1, which is taken as a share: all batches. For few, give 2 or more.")
        settings.check(config.as_dict())
        if config.seed_everything is True:
            # the processes of a distributed run inherit the first one's
            config.seed_everything = int(os.environ.get("PL_GLOBAL_SEED") or secrets.randbelow(2**31))

    def _parse_over(self, path: Path, args: list[str]) -> None:
        """Parse the arguments over the settings of a checkpoint's run."""
        subcommand, own = args[0], args[1:]
        assert self.checkpoint is not None
        try:
            inherited = resume.inherited(self.checkpoint, subcommand)
        except RequestError as error:
            raise RequestError(f"{path} is damaged: {error}") from error
        if peek(own, "trainer.precision") is not None and not peek(own, "trainer.plugins"):
            inherited["trainer"]["plugins"] = None  # a precision given anew takes the place of the run's plugin
        inherited = trusted(path, inherited, is_given=lambda option: peek(own, option) is not None)
        self.taken_over, self.inherited = inherited, f"--config={to_yaml(inherited)}"
        self.config = self.parser.parse_args([subcommand, self.inherited, *own])
        config = self.config[subcommand]
        config.ckpt_path, config.weights_only = str(path), True
        resume.check(path, self.checkpoint, subcommand, config)
        if subcommand == "fit":
            self.changes = resume.reported_changes(inherited, config.as_dict())
            if inexact := resume.inexact(self.changes):
                warn(
                    f"{', '.join(inexact)}: other batches than the run would have had, so it is no exact continuation."
                )

    def _find_checkpoint(self, wanted: str, root: Path, subcommand: str) -> Path:
        """Find and read the checkpoint to start from; `last` falls back on the newest whole one, and says so."""
        path = checkpoint_files.resolve(wanted, root, folder_means="last" if subcommand == "fit" else "best")
        try:
            self.checkpoint = checkpoint_files.read(path)
        except RequestError as error:
            whole = checkpoint_files.newest_readable(root, beside=path)
            if whole is None:
                raise
            if path.stem != "last" or str(path) == wanted or (wanted != "last" and whole[0].parent != path.parent):
                raise RequestError(f"{error} The newest whole checkpoint is {whole[0]}.") from error
            warn(f"{error} Going on from the newest whole one, {whole[0]}.")
            path, self.checkpoint = whole
        return path

    def before_instantiate_classes(self) -> None:
        nodes = self.config[self.subcommand].trainer.num_nodes
        if nodes > 1 and not {"NODE_RANK", "GROUP_RANK", "SLURM_NODEID"} & set(os.environ):
            warn(
                f"the run begins when all {nodes} nodes are there. Start this command on each, with NODE_RANK (0 to "
                f"{nodes - 1}), MASTER_ADDR and MASTER_PORT in its environment."
            )
        torch.set_float32_matmul_precision(self.config[self.subcommand].matmul_precision)

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.checkpoint:
            path = Path(self.config[self.subcommand].ckpt_path)
            resume.check_network(path, self.checkpoint, self.model.state_dict())
            resume.check_loops(path, self.checkpoint, self.trainer.fit_loop.state_dict())

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            own = isinstance(error, RequestError | RunError | torch.OutOfMemoryError)
            if own or not is_restoring(self.trainer):
                raise
            raise RequestError(
                f"{self.config[subcommand].ckpt_path} is damaged, or of another version, and can't be loaded: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error

    def _parse_ckpt_path(self) -> None:
        """Do not let a checkpoint's hyperparameters override the command line, as Lightning does."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand].trainer
        logger = False if config.logger in (None, True) else config.logger  # RunFolder adds the default ones
        writes = not (config.barebones or config.fast_dev_run)
        run = self._run_folder(config) if writes and self.subcommand == "fit" else None
        # in this order: the folder that the banner names, and the bar that must be closed before a report is printed
        banner = Banner(*self._banner(), self.checkpoint if self.subcommand == "fit" else None)
        callbacks: list[Callback] = [banner] if run is None else [self._preflight(), run, banner]
        shown = config.enable_progress_bar is not False and not config.barebones
        if shown and not any(isinstance(callback, AnyProgressBar) for callback in _list(config.callbacks)):
            callbacks.append(ProgressBar())
        if run is not None:
            callbacks += self._training(run, config)
        elif writes:
            callbacks.append(self.make_report())
        trainer = self.make_trainer(callbacks, logger=logger, **kwargs)
        given = self.config_init["fit"].scaler.given() if self.subcommand == "fit" else {}
        if given and gradient_scaler.scaler_of(trainer) is None:
            names = ", ".join(f"scaler.{name}" for name in given)
            warn(f"{names} has no effect: gradients are not scaled in {trainer.precision_plugin.precision}.")
        return trainer

    def make_trainer(self, callbacks: list[Callback], **replaced: Any) -> Trainer:
        """Make the Trainer of the settings.

        Args:
            callbacks: go before those that the settings name.
            replaced: go before other settings of the Trainer.

        Raises:
            MisconfigurationException: the settings do not go together, or not with this machine.
        """
        config = self.config_init[self.subcommand].trainer
        for callback in (callbacks := [*callbacks, *_list(config.callbacks)]):
            _leave_out_unused(callback)
        plugins = _list(config.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **replaced)
        except (ValueError, TypeError, ImportError, OverflowError) as error:
            raise MisconfigurationException(str(error)) from error
        # until a run listens for itself; Lightning's own ends a command some time later, with exit status 0
        trainer._signal_connector._sigterm_notifier_fn = signals.end_at_once  # type: ignore
        if self.subcommand == "fit":
            gradient_scaler.install(trainer, self.config_init["fit"].scaler)
            if (
                gradient_scaler.scaler_of(trainer) is None
            ):  # it would monitor nothing, but keep clipped steps from being captured
                _remove(trainer, LossScaleMonitor)
        if not self.config[self.subcommand].get("ckpt_path"):
            # or under SLURM Lightning would go on from any hpc_ckpt_N.ckpt that lies about, another job's too
            trainer._checkpoint_connector._user_managed = True
        return trainer

    def _banner(self) -> tuple[str | None, dict[str, str]]:
        """Return the precision asked for, and what only the command line knows of the run."""
        config = self.config[self.subcommand]
        seeded = config.seed_everything is not False
        lines = {"seed": str(config.seed_everything) if seeded else "none for the weights, 0 for the images"}
        if self.checkpoint:
            done = checkpoint_files.position(self.checkpoint)
            progress = f"{counted(done['epochs'], 'epoch')} done, step {done['step']:,}"
            lines["checkpoint"] = f"{config.ckpt_path} ({progress})"
        if self.changes:
            lines["changed"] = ", ".join(self.changes)
        if self.subcommand == "fit" and (ends := settings.endless(config.trainer)):
            lines["ends"] = ends
        return None if config.trainer.plugins else config.trainer.precision, lines

    def _run_folder(self, trainer: Any) -> RunFolder:
        parser, config = self._parser(self.subcommand), self.config[self.subcommand].clone()
        source = f"# went on from {config.ckpt_path}\n" if config.ckpt_path else ""
        config.ckpt_path = None  # or a command that takes this config would start from there again
        root = Path(trainer.default_root_dir or ".")
        text = source + parser.dump(config, skip_unset=False)
        return RunFolder(root, text, default_loggers=trainer.logger in (None, True))

    def _preflight(self) -> Preflight:
        return Preflight(None if self.checkpoint is None else (self.config["fit"].ckpt_path, self.checkpoint))

    def _training(self, run: RunFolder, trainer: Any) -> list[Callback]:
        steps = self._next_steps(trainer)
        given = {
            name: value  # what is not given anew is the checkpoint's
            for name, value in self.config_init["fit"].scaler.given().items()
            if value != self.taken_over.get("scaler", {}).get(name)
        }
        monitor = LossScaleMonitor(bool(trainer.gradient_clip_val), given)
        if trainer.enable_checkpointing is False:
            return [monitor, TerminateOnNaN(None), LoggedRows(run), FitSummary(run, None, steps)]
        checkpoint = RunCheckpoint(run, self.config[self.subcommand].checkpoint.every_n_train_steps)
        summary = FitSummary(run, checkpoint, steps)
        return [monitor, TerminateOnNaN(checkpoint), checkpoint, RandomStates(), LoggedRows(run), summary]

    def make_report(self) -> Callback:
        """Return the callback that writes what `validate`, `test` or `predict` found."""
        assert self.checkpoint is not None
        path = Path(self.config[self.subcommand].ckpt_path)
        folder = checkpoint_files.folder_of(path) / f"{self.subcommand}_{path.stem}"
        if self.subcommand == "predict":
            return PredictionWriter(folder)
        facts = {"command": self.subcommand, "checkpoint": str(path), **checkpoint_files.position(self.checkpoint)}
        return EvaluationReport(folder, facts)

    def _next_steps(self, trainer: Any) -> list[str]:
        root = f" --trainer.default_root_dir {trainer.default_root_dir}" if trainer.default_root_dir else ""
        more = 2 * (trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 5)
        steps = []
        if trainer.enable_checkpointing is not False:
            steps += [f"mnist-amp test{root}", f"mnist-amp fit{root} --ckpt_path last --trainer.max_epochs {more}"]
        if trainer.logger in (None, True):
            steps.append(f"tensorboard --logdir {folders.logs_dir(Path(trainer.default_root_dir or '.'))}")
        return steps


def run(args: list[str]) -> None:
    """Run the command line `args`, which `arrange` has put in order.

    Raises:
        RequestError: the request can't be carried out.
        Stopped: a signal ended the run.
    """
    prepare()
    MnistAmpCLI(args)


def prepare() -> None:
    """Set what holds for the whole process: what is silenced, and how torch looks for a GPU, who speaks for all."""
    for pattern in SILENCED if os.environ.get(DEBUG) else (*SILENCED, r"Error detected in \w+Backward"):
        warnings.filterwarnings("ignore", pattern)
    for name in QUIETED:
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = _quiet_writers
    processes.prepare()
    if not torch.cuda.is_available():
        # by which Lightning has torch look for a driver at every optimizer step, for a tenth of a millisecond
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def _list(given: Any) -> list[Any]:
    """Return what an option of the Trainer was given, which may be nothing, one or several."""
    return [] if given is None else [*given] if isinstance(given, list) else [given]


def _remove(trainer: Trainer, kind: type[Callback]) -> None:
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, kind)]  # type: ignore[attr-defined]


def _leave_out_unused(callback: Callback) -> None:
    """Tell Lightning which batch hooks a callback does not have, as calling one that does nothing costs time, too."""
    for hook in ("on_train_batch_start", "on_train_batch_end", *WITHIN):
        if getattr(type(callback), hook) is getattr(Callback, hook):
            setattr(callback, hook, None)


def _quiet_writers(args: threading.ExceptHookArgs) -> None:
    """Leave it to the main thread to say that TensorBoard's own can't write."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def as_dict(init: Namespace | None) -> dict[str, Any] | None:
    return None if init is None else init.as_dict()
