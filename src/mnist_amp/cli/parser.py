"""The parser of a command and its options. Those of the Trainer are in `trainer_options`."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal, NoReturn

import jsonargparse
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LRSchedulerTypeTuple
from torch import nn
from torch.optim import Optimizer

from mnist_amp.cli import help_texts
from mnist_amp.cli.class_defaults import with_own_defaults
from mnist_amp.cli.error_messages import translate_error
from mnist_amp.cli.trainer_options import add_trainer_arguments
from mnist_amp.data import ClassificationDataModule
from mnist_amp.module import LitClassifier
from mnist_amp.named_classes import FILLED, WithoutSubConfigs
from mnist_amp.networks.factory import NETWORK
from mnist_amp.number_types import NonNegativeInt, Seed
from mnist_amp.runs.config_text import read_yaml
from mnist_amp.training.gradient_scaler import ScalerSettings
from mnist_amp.training.optimizers import ADAM
from mnist_amp.training.schedules import annotate_nested_schedules

SEED = 42


class Parser(WithoutSubConfigs, LightningArgumentParser):
    """Reports an error in one line, where jsonargparse prints all options first.

    Files are read for `--config` and for a group of options such as `--trainer`. A file that has the name of another
    value, such as `Adam` or `ddp`, is not read, and YAML is read as `runs.config_text` describes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        jsonargparse.set_loader("yaml", read_yaml, (yaml.YAMLError,))
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, **kwargs: Any) -> Namespace:  # type: ignore[override]
        parsed: Namespace = super().parse_args(None if args is None else with_own_defaults(args), **kwargs)
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a part, such as an optimizer; its parent reports the error
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        raise translate_error(message, help_texts.option_names(parser))


def add_process_arguments(parser: LightningArgumentParser) -> None:
    """Add the options that set up the process: the seed and the precision of matrix products."""
    parser.add_argument(
        "--seed_everything",
        type=bool | Seed,
        default=SEED,
        help="Seed of the weights, the order of the images and the split. true chooses a seed at random; false leaves "
        "the weights random, and uses 0 for the images.",
    )
    parser.add_argument(
        "--matmul_precision",
        type=Literal["highest", "high", "medium"],
        default="highest",
        help="Precision of float32 matrix products and convolutions: highest is float32; high and medium use TF32 on "
        "GPUs that have it.",
    )


def add_core_arguments(parser: LightningArgumentParser, *, trains: bool) -> None:
    """Add the options of the network, the model, the data, the optimizer, its schedule and the Trainer.

    Args:
        parser: of a command.
        trains: whether the command trains, and so has the option `compile`.
    """
    annotate_nested_schedules()
    parser.add_subclass_arguments(
        (nn.Module,), "network", required=False, instantiate=False, fail_untyped=False, skip=set(FILLED)
    )
    # as add_lightning_class_args does, which can't leave out a parameter
    parser.add_class_arguments(LitClassifier, "model", fail_untyped=False, skip=set() if trains else {"compile"})
    if trains:
        add_compile_argument(parser)
    parser.add_lightning_class_args(ClassificationDataModule, "data")
    for fact in ("num_classes", "image_shape"):
        parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")
    parser.link_arguments("network", "model.network", compute_fn=_as_dict)
    parser.add_optimizer_args((Optimizer,), "optimizer")
    parser.add_lr_scheduler_args(LRSchedulerTypeTuple, "lr_scheduler")
    for key in ("optimizer", "lr_scheduler"):
        parser.link_arguments(key, f"model.{key}", compute_fn=_as_dict)
    add_trainer_arguments(parser)  # last, so that --help begins with this project's own options
    parser.set_defaults({"network": NETWORK, "optimizer": ADAM})


def add_compile_argument(parser: LightningArgumentParser) -> None:
    """Add the option `compile`, which is also a flag: `--compile`."""
    parser.add_argument(
        "--compile",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="Compile the training step with torch.compile, which takes seconds before it saves time. See "
        "docs/speed.md.",
    )
    parser.link_arguments("compile", "model.compile")


def add_fit_arguments(parser: LightningArgumentParser) -> None:
    """Add the options that only `fit` has."""
    parser.add_argument(
        "--checkpoint.every_n_train_steps",
        type=NonNegativeInt,
        default=500,
        help="Optimizer steps between two checkpoints; 0 saves only at the end of each epoch.",
    )
    parser.add_class_arguments(ScalerSettings, "scaler")
    parser.add_argument(
        "--weights",
        type=str | None,
        default=None,
        help="Begin a new run with the weights of a file: a checkpoint, a .pth or a .safetensors file.",
    )
    parser.add_argument(
        "--weights_strict",
        type=bool,
        default=True,
        help="Whether all layers must fit; false leaves those random that do not, and prints which.",
    )


def _as_dict(init: Namespace | None) -> dict[str, Any] | None:
    return None if init is None else _plain(init.as_dict())


def _plain(value: Any) -> Any:
    """Return class_path and init_args without objects: they are defaults of a class, and stay so if left out."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if _is_plain(part)}
    return value.name if isinstance(value, Enum) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | tuple | dict | Enum)
