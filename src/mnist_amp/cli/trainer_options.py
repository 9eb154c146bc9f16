"""The options of Lightning's Trainer, in which each number has one meaning: 1 is a count, 1.0 is a share."""

import inspect
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

# The parser tries the types of a union in their order. Lightning declares `Union[int, float]`, but `typing` caches
# unions and ignores their order, so any other package can turn it into `Union[float, int]`, which reads 1 as 1.0.
# `int | float` is not cached.
NUMBER = int | float | None
LIMIT = (
    "Batches to use of each {} epoch. A whole number is a count: 1 is one batch. A decimal number is a share: 1.0 is "
    "all of them."
)
NUMBERS: dict[str, tuple[Any, str]] = {
    "limit_train_batches": (NUMBER, LIMIT.format("training")),
    "limit_val_batches": (NUMBER, LIMIT.format("validation")),
    "limit_test_batches": (NUMBER, LIMIT.format("test")),
    "limit_predict_batches": (NUMBER, LIMIT.format("prediction")),
    "overfit_batches": (
        int | float,
        "Train on these batches again and again. A whole number is a count, a decimal number is a share; 0 uses all.",
    ),
    "val_check_interval": (
        int | float | str | dict[str, int] | None,
        "When to validate within an epoch. A whole number is a count of batches, a decimal number is a share of the "
        "epoch, and 00:00:15:00 is a time (days:hours:minutes:seconds).",
    ),
    "gradient_clip_val": (NUMBER, "Clip gradients at this value, after they are unscaled. null does not clip."),
}

# one device, even if there are more; the banner replaces the model summary
DEFAULTS = {"max_epochs": 5, "precision": "16-mixed", "devices": 1, "enable_model_summary": False}


def add_trainer_arguments(parser: LightningArgumentParser) -> None:
    """Add the Trainer's options, as `LightningArgumentParser.add_lightning_class_args` does, with other defaults."""
    skip: set[str | int] = set(NUMBERS)
    parser.add_class_arguments(Trainer, "trainer", skip=skip, fail_untyped=False, instantiate=False, sub_configs=True)
    assert parser.groups is not None
    parameters = inspect.signature(Trainer).parameters
    for name, (kind, text) in NUMBERS.items():
        parser.groups["trainer"].add_argument(
            f"--trainer.{name}", type=kind, default=parameters[name].default, help=text
        )
    parser.set_defaults({f"trainer.{key}": value for key, value in DEFAULTS.items()})
