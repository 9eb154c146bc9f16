"""Resuming: the settings that a command inherits from a checkpoint's run, and those that can't be overridden."""

import itertools
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from mnist_amp.data.sources import TORCHVISION
from mnist_amp.errors import RequestError
from mnist_amp.runs.checkpoint_contents import RunInfo, progress
from mnist_amp.runs.checkpoint_conversion import converted_settings
from mnist_amp.runs.checkpoint_schema import NEEDED, SPLIT, schema_error, shape_of
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


class Seen(NamedTuple):
    """Images that are held out now, and that a network may have been trained on.

    Attributes:
        by: its run, an earlier run whose weights this one had, or unknown.
        test: whether test images are among them.
        message: for the user, with the options that avoid it, if there are any.
    """

    by: Literal["its run", "an earlier run", "unknown"]
    test: bool
    message: str


def seen_images(path: Path, saved: Mapping[str, Any], data: Mapping[str, Any], seed_option: str) -> Seen | None:
    """Find out whether the network of a file may have been trained on images that are held out now.

    It was not if the data are others, or if its run held the same images out. Fewer validation images with the same
    seed are some of those before.

    Args:
        path: of the file, named in the message.
        saved: hyperparameters of the data of its run; none if they are unknown.
        data: hyperparameters of the data now.
        seed_option: the option that sets the seed now.

    Returns:
        None if it was trained on none of them, as far as is known.
    """
    if schema_error(saved, SPLIT) is not None:
        text = f"{path} holds weights alone, so it is unknown whether they were trained on the validation images."
        return Seen("unknown", False, text)
    in_extra = _is_same_folder(saved.get("extra_folder"), data["folder"])
    if not in_extra and not _is_same_data(saved, data):
        return None
    names = ("train_size", "dataset_args", "seed", "test_seed")  # old checkpoints do not have all of them
    differ = {name for name in names if saved.get(name, data[name]) != data[name]}
    is_other = in_extra or bool(differ) or data["val_size"] > saved["val_size"]
    val = data["val_size"] > 0 and (is_other or saved.get("val_is_unseen") is False)
    is_other_test = in_extra or bool(differ - {"seed"})
    test = data["test_seed"] is not None and (is_other_test or saved.get("test_is_unseen") is False)
    if not (val or test):
        return None
    kinds = " and ".join(["validation"] * val + ["test"] * test)
    message = f"{path} may have been trained on images that are {kinds} images now, so their accuracy may be too high."
    if in_extra:
        reason = "Its run trained on all images of this folder, with --data.extra_folder."
    else:
        reason = _seen_reason(saved, data, differ) or _split_advice(saved, data, seed_option)
    return Seen("its run" if is_other else "an earlier run", test, f"{message} {reason}")


def _seen_reason(saved: Mapping[str, Any], data: Mapping[str, Any], differ: Set[str]) -> str | None:
    """Return why the images of a run can't be held out again; None if they can."""
    if "train_size" in differ:
        return f"The data have {data['train_size']:,} training images, and had {saved['train_size']:,}."
    if "dataset_args" in differ:
        return "Its run had other data.dataset_args."
    if saved.get("val_is_unseen") is False:
        return "Its run began with weights of another or an unknown split, or was resumed with another split."
    return "Its run held out no validation images." if data["val_size"] > saved["val_size"] == 0 else None


def _split_advice(saved: Mapping[str, Any], data: Mapping[str, Any], seed_option: str) -> str:
    """Return the options that hold out the images of a run again."""
    option, test_seed = seed_option, saved.get("test_seed")
    if None not in (test_seed, data["test_seed"]):  # only data.seed sets both seeds
        option = "data.seed" if test_seed == saved["seed"] else "seed_everything"
    unset = " --data.seed null" if option != "data.seed" == seed_option else ""
    size = f" --data.val_size {saved['val_size']}" if data["val_size"] else ""
    return f"Give the split of its run: --{option} {saved['seed']}{unset}{size}."


def _is_same_data(saved: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    names = [str(each.get("dataset", "MNIST")).removeprefix(TORCHVISION) for each in (saved, data)]
    is_folder = saved.get("folder") is not None or data["folder"] is not None
    return names[0] == names[1] and (not is_folder or _is_same_folder(saved.get("folder"), data["folder"]))


def _is_same_folder(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and Path(before).resolve() == Path(now).resolve()


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
