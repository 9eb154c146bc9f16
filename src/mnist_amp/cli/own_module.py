"""A LightningModule and a LightningDataModule of the user's, by name, instead of those of this project.

`compare` and `profile` take them, because they measure a training step of any module:

    mnist-amp compare --model my_package.MyLitModule --model.width 64 --data my_package.MyDataModule
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser

from mnist_amp.cli.arguments import class_given, written
from mnist_amp.cli.trainer_options import add_trainer_arguments
from mnist_amp.errors import RequestError
from mnist_amp.named_classes import load_module
from mnist_amp.wording import nearest

OPTIONS = {"model": LightningModule, "data": LightningDataModule}


def is_named(args: Sequence[str]) -> bool:
    """Whether arguments name a class as the model or as the data, rather than a file with their settings."""
    return any(_named(args, option) is not None for option in OPTIONS)


def check(args: Sequence[str]) -> None:
    """Check that the classes that arguments name exist, before they are parsed.

    Raises:
        RequestError: a class is missing, or is of another kind.
    """
    named = {option: _named(args, option) for option in OPTIONS}
    for option, name in named.items():
        if name is None:
            other = next(each for each in OPTIONS if each != option)
            raise RequestError(
                f"{other} is a class of your own, {named[other]}, so {option} must be one as well: give a "
                f"{OPTIONS[option].__name__}, as in --{option} my_package.My{OPTIONS[option].__name__}."
            )
        _check_class(option, name)
    if any(option == "compile" for option, _ in written(args)):
        raise RequestError(
            f"compile is set, but the training_step of {named['model']} may do anything. Leave it out, and compile in "
            "the module: self.net.compile()."
        )
    if (network := class_given(args, "network")) is not None:
        raise RequestError(
            f"network is {network}, but {named['model']} has its own. Leave out --network, or both --model and --data."
        )


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options of a module and its data, both by the name of their class, and of the Trainer."""
    for option, base in OPTIONS.items():
        parser.add_subclass_arguments(base, option, required=True, fail_untyped=False)
    add_trainer_arguments(parser)


def check_optimizer(module: LightningModule, config: Mapping[str, Any]) -> None:
    """Check that a module has an optimizer that can be used.

    Args:
        module: after the options `optimizer` and `lr_scheduler` were applied.
        config: settings of the fit.

    Raises:
        RequestError: there is no optimizer, or the option can't replace those of the module.
    """
    name = type(module).__name__
    if config.get("optimizer") and not module.automatic_optimization:
        raise RequestError(f"optimizer can't replace those of {name}, which optimizes manually. Leave it out.")
    if not config.get("optimizer") and config.get("lr_scheduler"):
        raise RequestError("lr_scheduler needs an optimizer. Give --optimizer as well.")
    has_own = type(module).configure_optimizers is not LightningModule.configure_optimizers
    if not config.get("optimizer") and not has_own:
        raise RequestError(
            f"{name} has no configure_optimizers. Write one, or give --optimizer Adam --optimizer.lr 0.001."
        )


def _named(args: Sequence[str], option: str) -> str | None:
    name = class_given(args, option)
    is_name = name not in (None, "null") and not str(name)[0].isdigit() and not Path(str(name)).is_file()
    return name if is_name else None


def _check_class(option: str, name: str) -> None:
    module_name, _, class_name = name.rpartition(".")
    if not module_name or not all(map(str.isidentifier, name.split("."))):
        raise RequestError(
            f"{option} is {name}, which is not the name of a class with its module. Give it as in "
            f"--{option} my_package.{class_name if class_name.isidentifier() else 'MyClass'}."
        )
    base, module = OPTIONS[option], load_module(module_name)
    known = [each for each, found in vars(module).items() if inspect.isclass(found) and issubclass(found, base)]
    found = getattr(module, class_name, None)
    if found is None:
        others = f" It has {', '.join(known[:12])}." if known else ""
        raise RequestError(f"{module_name} has no {class_name}{nearest(class_name, known)}.{others}")
    if not (inspect.isclass(found) and issubclass(found, base)):
        hint = " A network is given with --network." if option == "model" else ""
        raise RequestError(f"{name} is not a {base.__name__}, so it can't be the {option}.{hint}")
