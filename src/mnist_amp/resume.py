"""What a command takes over from the run of the checkpoint that it starts from, and what can't be changed then."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mnist_amp import runs
from mnist_amp.errors import RequestError
from mnist_amp.report import counted

# how long a run goes on, and where from, is a matter of each command
NOT_TAKEN_OVER = ("max_time", "max_steps", "min_steps", "min_epochs", "fast_dev_run")


def inherited(checkpoint: dict[str, Any], subcommand: str) -> dict[str, Any]:
    """Return the settings of a checkpoint's run that a command takes over: `fit` nearly all, the others few."""
    saved = dict(checkpoint["hyper_parameters"])
    if "hidden_dim" not in saved:
        raise RequestError("the checkpoint is of another project: it says nothing of hidden_dim.")
    config: dict[str, Any] = {key: saved.pop(key) for key in ("optimizer", "lr_scheduler") if saved.get(key)}
    config["model"] = {key: value for key, value in saved.items() if key not in ("optimizer", "lr_scheduler")}
    # a checkpoint of the command has the whole configuration; one of somebody's own Trainer, the hyperparameters
    config.update(yaml.safe_load(checkpoint.get(runs.CONFIG_KEY, "{}")))
    trainer = {key: value for key, value in config.pop("trainer", {}).items() if key not in NOT_TAKEN_OVER}
    if subcommand == "fit":
        return config | {"trainer": trainer}
    precision = {key: trainer[key] for key in ("precision", "plugins") if key in trainer}
    return {key: config[key] for key in ("model", "data", "seed_everything") if key in config} | {"trainer": precision}


def check(path: Path, checkpoint: dict[str, Any], subcommand: str, config: Any) -> None:
    """Refuse settings that do not go with the checkpoint.

    Raises:
        RequestError: the message names both values and what to do.
    """
    trained = checkpoint["hyper_parameters"]
    if config.model.hidden_dim != trained["hidden_dim"]:
        raise RequestError(
            f"model.hidden_dim is {config.model.hidden_dim}, but {path} holds a network of hidden_dim "
            f"{trained['hidden_dim']}. Leave model.hidden_dim out, or start without this checkpoint."
        )
    if subcommand == "fit":
        _check_optimizer(path, trained["optimizer"], config)
        _check_limits(path, checkpoint, config)
    if subcommand == "validate":
        _check_held_out(path, checkpoint["datamodule_hyper_parameters"], config)


def changes(before: Mapping[str, Any], after: Mapping[str, Any], within: str = "") -> list[str]:
    """List the settings that differ, as `data.batch_size 64 -> 32`, for those that `before` has."""
    found = []
    for key, value in before.items():
        name = f"{within}{key}".replace(".init_args", "")
        if isinstance(value, Mapping) and isinstance(after.get(key), Mapping):
            found += changes(value, after[key], f"{name}.")
        elif _plain(after.get(key)) != _plain(value):
            found.append(f"{name} {value} -> {after.get(key)}")
    return found


def _plain(value: Any) -> Any:
    """Return tuples as lists, which is what they are in a file."""
    return list(value) if isinstance(value, tuple) else value


def peek(args: Iterable[str], key: str) -> Any:
    """Return what an option will be by config files and arguments, before they are parsed; None if nothing says it.

    The parser needs to know the checkpoint's settings beforehand, to know which options its optimizer takes.
    """
    found, remaining = None, iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if name == f"--{key}":
            found = value if equals else next(remaining, None)
        elif name == "--config" and equals:
            said = _lookup(_load(value), key)
            found = found if said is None else said
    return found


def _check_optimizer(path: Path, trained: Mapping[str, Any] | None, config: Any) -> None:
    if trained is not None and config.optimizer.class_path != trained["class_path"]:
        raise RequestError(
            f"optimizer is {config.optimizer.class_path}, but {path} holds the state of {trained['class_path']}, which "
            "another optimizer can't go on from. Leave optimizer out, or start without this checkpoint."
        )


def _check_limits(path: Path, checkpoint: dict[str, Any], config: Any) -> None:
    done = runs.position(checkpoint)
    for limit, noun, reached in (("max_epochs", "epoch", done["epochs"]), ("max_steps", "step", done["step"])):
        wanted = getattr(config.trainer, limit)
        if wanted is not None and 0 <= wanted <= reached:
            raise RequestError(
                f"{path} has {counted(reached, noun)} behind it and trainer.{limit} is {wanted}: nothing is left to "
                f"train. Ask for more, as in --trainer.{limit} {max(2 * reached, 1)}."
            )


def _check_held_out(path: Path, trained: Mapping[str, Any], config: Any) -> None:
    if config.data.val_size == trained["val_size"] == 0:
        raise RequestError(f"{path} was trained on all images, so none are left to validate on. Use `mnist-amp test`.")
    seed = config.seed_everything if config.data.seed is None else config.data.seed
    for name, value, was in (
        ("data.val_size", config.data.val_size, trained["val_size"]),
        ("seed", seed, trained["seed"]),
    ):
        if int(value) != was:
            raise RequestError(
                f"{name} is {int(value)}, but {path} was trained with {was}, and has seen images that would be held "
                "out now. Leave it out."
            )


def _load(config: str) -> Any:
    """Read a config file, or a config given as text; the parser is to complain of one that can't be read."""
    try:
        return yaml.safe_load(Path(config).read_text(encoding="utf-8") if Path(config).is_file() else config)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config
