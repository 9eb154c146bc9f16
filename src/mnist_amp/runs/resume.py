"""Resuming: the settings that a command inherits from a checkpoint's run, and those that can't be overridden."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mnist_amp.errors import RequestError, warn
from mnist_amp.runs.checkpoint_contents import RunInfo, progress
from mnist_amp.runs.checkpoint_conversion import converted_settings
from mnist_amp.runs.checkpoint_schema import NEEDED, schema_error, shape_of
from mnist_amp.runs.config_text import parse_yaml
from mnist_amp.runs.weights_file import WEIGHTS_ALONE
from mnist_amp.wording import counted

# the images, their order, and the position in an epoch depend on these
ORDER = (
    *("data.dataset", "data.folder", "data.extra_folder", "data.image_size", "data.channels", "data.mean", "data.std"),
    *("data.batch_size", "data.val_size", "data.seed", "seed_everything"),
    *("trainer.accumulate_grad_batches", "trainer.limit_train_batches", "trainer.overfit_batches"),
)
SHOWN = 8  # weights in a message
ACCUMULATION = "GradientAccumulationScheduler"
# of a configuration: each holds settings by name
GROUPS = {f"{name}?": {str: object} for name in ("model", "data", "trainer", "scaler", "checkpoint")}
INHERITED = ("network", "model", "data", "seed_everything", "matmul_precision")  # by other commands than fit
# each command has its own
NOT_INHERITED = ("max_time", "fast_dev_run", "default_root_dir", "num_nodes")
# not reported as changed: the length of the run; the precision has a line of its own, with the loss scale
STARTING_POINT = ("ckpt_path", "weights_only", "weights", "weights_strict")  # of a command, not settings of its run
UNREPORTED = (
    *("max_epochs", "max_steps", "min_epochs", "min_steps", "precision", "plugins"),
    *("max_time", "fast_dev_run", "default_root_dir"),
)


def inherited_settings(checkpoint: dict[str, Any], subcommand: str) -> dict[str, Any]:
    """Return the settings of a checkpoint's run that a command inherits: `fit` nearly all, the others few.

    Raises:
        RequestError: its configuration can't be read.
    """
    config = saved_settings(checkpoint)
    trainer = {key: value for key, value in config.pop("trainer").items() if key not in NOT_INHERITED}
    if subcommand == "fit":
        return config | {"trainer": trainer}
    precision = {key: trainer[key] for key in ("precision", "plugins") if key in trainer}
    return {key: config[key] for key in INHERITED if key in config} | {"trainer": precision}


def saved_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the run that wrote a checkpoint.

    Raises:
        RequestError: its configuration can't be read.
    """
    saved = dict(checkpoint["hyper_parameters"])
    config: dict[str, Any] = {key: saved.pop(key) for key in ("optimizer", "lr_scheduler") if saved.get(key)}
    config["model"] = {"lr_scheduler_interval": saved["lr_scheduler_interval"]}
    if saved["network"] is not None:
        config["network"] = saved["network"]
    # a checkpoint of the command has the complete configuration; one of a user's own Trainer has hyperparameters
    config.update(parse_yaml(RunInfo.of(checkpoint).config or "{}", "its configuration"))
    if (problem := schema_error(config, GROUPS)) is not None:
        raise RequestError(f"in its configuration, {problem}.")
    return converted_settings({"trainer": {}, **config})


def check_network(path: Path, checkpoint: dict[str, Any], network: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose weights do not fit `network`, a state_dict."""
    saved = checkpoint["state_dict"]
    differ = [name for name in {**network, **saved} if _shape(saved, name) != _shape(network, name)]
    if differ:
        raise RequestError(
            f"{path} holds another network. These weights differ in name or shape: {_shortened(sorted(differ))}. "
            f"This network has {_shortened([*network])}. Name the network of the file with --network; if it is this "
            "one, its code has changed."
        )


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_loops(path: Path, checkpoint: dict[str, Any], loops: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose progress has other types than `loops`, the state of a new Trainer."""
    if (problem := schema_error(checkpoint["loops"]["fit_loop"], shape_of(loops), "progress")) is not None:
        raise RequestError(f"{path} is damaged, or of another version of Lightning: its {problem}.")


def reported_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the settings that differ from the saved ones, without those that have a line of their own."""
    known = {key: value for key, value in before.items() if key not in STARTING_POINT}
    known["trainer"] = {key: value for key, value in before["trainer"].items() if key not in UNREPORTED}
    known.setdefault("lr_scheduler", None)  # a schedule may be added
    return changed_settings(known, after)


def check_settings(path: Path, checkpoint: dict[str, Any], subcommand: str, config: Any) -> None:
    """Refuse settings that do not fit the checkpoint.

    Raises:
        RequestError: the message names both values and what to do.
    """
    if subcommand == "fit" and "optimizer_states" not in checkpoint:
        raise RequestError(
            f"{path} has no optimizer state, so no fit can resume from it. To begin a new run with its weights, use "
            f"--weights {path} instead."
        )
    alone = WEIGHTS_ALONE in checkpoint
    if not alone and (problem := schema_error(checkpoint, NEEDED.get(subcommand, {}))) is not None:
        raise RequestError(f"{path} is not enough to {subcommand} with: its {problem}.")
    trained = checkpoint["hyper_parameters"]
    if differ := changed_network(trained["network"], config):
        raise RequestError(
            f"{path} holds another network (checkpoint -> now): {', '.join(differ)}. Leave "
            f"{', '.join(change.partition(' ')[0] for change in differ)} out, or start without this checkpoint."
        )
    if subcommand == "fit":
        _check_optimizer(path, trained["optimizer"], config)
        _check_schedule(path, checkpoint, config)
        _check_limits(path, checkpoint, config)
    if subcommand == "validate" and alone:
        warn(f"{path} holds weights alone, so it is unknown whether they were trained on the validation images.")


def changed_network(before: Mapping[str, Any] | None, config: Any) -> list[str]:
    """List what differs between the network of a file and that of the settings; nothing if the file does not tell."""
    return [] if before is None else changed_settings({"network": before}, {"network": config.network.as_dict()})


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any], within: str = "") -> list[str]:
    """List the settings that differ, as `data.batch_size 64 -> 32`, for those that `before` has."""
    found = []
    after = {str(key): value for key, value in after.items()}  # a number may be a key; in a file it is text
    for key, value in ((str(key), value) for key, value in before.items()):
        name = f"{within}{key}".replace(".init_args", "")
        names = _class_name(value), _class_name(after.get(key))
        if any(names) and names[0] != names[1]:
            found.append(f"{name} {names[0]} -> {names[1]}")
        elif by_class(value) or by_class(after.get(key)):
            found += _changed_list(name, by_class(value), by_class(after.get(key)))
        elif isinstance(value, Mapping) and isinstance(after.get(key), Mapping):
            found += changed_settings(value, after[key], f"{name}.")
        elif _plain(after.get(key)) != _plain(value):
            found.append(f"{name} {value} -> {after.get(key)}")
    return found


def _changed_list(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List what differs in a list of classes, such as `trainer.callbacks`: its classes, else their settings."""
    if [*before] != [*after]:
        names = ["[" + ", ".join(classes) + "]" for classes in (before, after)]
        return [f"{name} {names[0]} -> {names[1]}"]
    return [change for key in before for change in changed_settings(before[key], after[key], f"{name}.{key}.")]


def by_class(value: Any) -> dict[str, Any]:
    """Return a list of class_path and init_args by the names of the classes; empty for another setting."""
    names = [_class_name(item) for item in value] if isinstance(value, list | tuple) else []
    return {name: item for name, item in zip(names, value, strict=True) if name is not None} if names else {}


def _class_name(value: Any) -> str | None:
    """Return the name of the class in class_path and init_args; None for another setting."""
    return str(value["class_path"]).rpartition(".")[2] if isinstance(value, Mapping) and "class_path" in value else None


def _plain(value: Any) -> Any:
    """Return tuples as lists, which is what they are in a file."""
    return list(value) if isinstance(value, tuple) else value


def changes_of_order(changed: Iterable[str]) -> list[str]:
    """Return the changes that alter the batches: their images, the order of these, or how many make a step."""
    return [change for change in changed if change.startswith(ORDER) or ACCUMULATION in change]


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def _check_optimizer(path: Path, trained: Mapping[str, Any] | None, config: Any) -> None:
    if trained is not None and config.optimizer.class_path != trained["class_path"]:
        raise RequestError(
            f"optimizer is {config.optimizer.class_path}, but {path} holds the state of {trained['class_path']}, which "
            "another optimizer can't use. Leave optimizer out, or start without this checkpoint."
        )


def _check_schedule(path: Path, checkpoint: Mapping[str, Any], config: Any) -> None:
    """Refuse a checkpoint that has lost the state of its schedule. Other settings of a schedule are not refused."""
    if checkpoint["hyper_parameters"]["lr_scheduler"] and config.lr_scheduler and not checkpoint.get("lr_schedulers"):
        raise RequestError(f"{path} is damaged: it has no state of its schedule.")


def _check_limits(path: Path, checkpoint: dict[str, Any], config: Any) -> None:
    done = progress(checkpoint)
    for limit, noun, reached in (("max_epochs", "epoch", done.epochs), ("max_steps", "step", done.step)):
        wanted = getattr(config.trainer, limit)
        if wanted is not None and 0 <= wanted <= reached:
            raise RequestError(
                f"{path} has trained {counted(reached, noun)} and trainer.{limit} is {wanted}: nothing is left to "
                f"train. Raise it, for example --trainer.{limit} {max(2 * reached, 1)}."
            )


def check_held_out(
    path: Path, checkpoint: Mapping[str, Any], train_size: int, val_size: int, seed: int, seed_option: str
) -> None:
    """Refuse to validate on images that the run of a checkpoint has trained on.

    Args:
        path: of the checkpoint.
        checkpoint: its content.
        train_size: training images now, with those held out.
        val_size: images held out now.
        seed: of the split now.
        seed_option: the option that sets it.
    """
    trained = checkpoint["datamodule_hyper_parameters"]
    if val_size == trained["val_size"] == 0:
        raise RequestError(f"{path} was trained on all images, so no validation images are left. Use `mnist-amp test`.")
    if train_size != trained.get("train_size", train_size):
        raise RequestError(
            f"the data have {train_size:,} training images, and {path} was trained on data with "
            f"{trained['train_size']:,}. Another number means other validation images, of which it has seen some."
        )
    for name, value, was in (
        ("data.val_size", val_size, trained["val_size"]),
        (seed_option, seed, trained["seed"]),
    ):
        if value != was:
            raise RequestError(
                f"{name} is {value}, but {path} was trained with {was}. "
                f"It has seen images that would be validation images now. Leave {name} out."
            )


def has_held_out(saved: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether a run has held out the images that are validation images now, as far as is known.

    Args:
        saved: hyperparameters of its data, from a checkpoint.
        data: hyperparameters of the data now, with the same images.
    """
    if schema_error(saved, NEEDED["validate"]["datamodule_hyper_parameters"]) is not None:
        return True
    same_order = all(saved.get(name, data[name]) == data[name] for name in ("train_size", "seed"))
    # fewer validation images are a part of those before
    is_split_unseen = data["val_size"] == 0 or (same_order and data["val_size"] <= saved["val_size"])
    return is_split_unseen and saved.get("val_is_unseen") is not False


_ADVICE = "Name the data that it was trained on with --data.dataset or --data.folder, or start without this checkpoint."


def check_data(path: Path, checkpoint: Mapping[str, Any], classes: Sequence[str], image_shape: tuple[int, ...]) -> None:
    """Refuse a checkpoint that was trained on images of another shape, or of other classes."""
    num_classes = len(classes)
    named = checkpoint.get("datamodule_hyper_parameters", {}).get("classes")
    trained = checkpoint["hyper_parameters"]
    was, now = (trained["num_classes"], trained["image_shape"]), (num_classes, image_shape)
    if None not in was and (was[0], tuple(was[1])) != (now[0], tuple(now[1])):
        texts = [
            f"images of {' x '.join(map(str, shape))} in {counted(number, 'class')}" for number, shape in (was, now)
        ]
        raise RequestError(f"{path} was trained on {texts[0]}, but the data are {texts[1]}. {_ADVICE}")
    if named is not None and list(named) != list(classes):
        pairs = itertools.zip_longest(named, classes, fillvalue="none")
        number, (before, name) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
        raise RequestError(
            f"{path} was trained on other classes: class {number} was {before}, and is {name} in the data. {_ADVICE}"
        )
