"""What a command takes over from the run of the checkpoint that it starts from, and what can't be changed then."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mnist_amp.errors import RequestError
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.checkpoint_schema import NEEDED, schema_error, shape_of
from mnist_amp.runs.config_text import parse_yaml
from mnist_amp.wording import counted

# what the order of the images, and where an epoch's middle is, depend on
ORDER = (
    *("data.batch_size", "data.val_size", "data.seed", "seed_everything"),
    *("trainer.accumulate_grad_batches", "trainer.limit_train_batches", "trainer.overfit_batches"),
)
# of a configuration
GROUPS = {f"{name}?": {str: object} for name in ("model", "data", "trainer", "scaler", "checkpoint")}
# a matter of each command
NOT_TAKEN_OVER = ("max_time", "fast_dev_run", "default_root_dir")
# what is not said where it differs: how long a run goes on; the precision is said with its loss scale
UNSAID = ("max_epochs", "max_steps", "min_epochs", "min_steps", "precision", "plugins")


def inherited(checkpoint: dict[str, Any], subcommand: str) -> dict[str, Any]:
    """Return the settings of a checkpoint's run that a command takes over: `fit` nearly all, the others few.

    Raises:
        RequestError: its configuration can't be read.
    """
    saved = dict(checkpoint["hyper_parameters"])
    config: dict[str, Any] = {key: saved.pop(key) for key in ("optimizer", "lr_scheduler") if saved.get(key)}
    config["model"] = {"hidden_dim": saved["hidden_dim"], "lr_scheduler_interval": saved["lr_scheduler_interval"]}
    # a checkpoint of the command has the whole configuration; one of somebody's own Trainer, the hyperparameters
    config.update(parse_yaml(checkpoint.get(checkpoint_files.CONFIG_KEY, "{}"), "its configuration"))
    if (problem := schema_error(config, GROUPS)) is not None:
        raise RequestError(f"in its configuration, {problem}.")
    trainer = {key: value for key, value in config.pop("trainer", {}).items() if key not in NOT_TAKEN_OVER}
    if subcommand == "fit":
        return config | {"trainer": trainer}
    precision = {key: trainer[key] for key in ("precision", "plugins") if key in trainer}
    return {key: config[key] for key in ("model", "data", "seed_everything", "matmul_precision") if key in config} | {
        "trainer": precision
    }


def check_network(path: Path, checkpoint: dict[str, Any], network: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose weights are not those of `network`, a state_dict."""
    saved = checkpoint["state_dict"]
    differ = [name for name in {**network, **saved} if _shape(saved, name) != _shape(network, name)]
    if differ:
        raise RequestError(
            f"{path} is of another network: its {', '.join(sorted(differ))} {'is' if len(differ) == 1 else 'are'} not "
            f"as in this one, which has {', '.join(network)}."
        )


def check_loops(path: Path, checkpoint: dict[str, Any], loops: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose progress is not of the kind of `loops`, a new Trainer's state."""
    if (problem := schema_error(checkpoint["loops"]["fit_loop"], shape_of(loops), "progress")) is not None:
        raise RequestError(f"{path} is damaged, or of another version of Lightning: its {problem}.")


def reported_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the settings that differ from those that were taken over, without those that a command is about."""
    known = {key: value for key, value in before.items() if key not in ("ckpt_path", "weights_only")}
    known["trainer"] = {key: value for key, value in before["trainer"].items() if key not in UNSAID}
    return changes(known, after)


def check(path: Path, checkpoint: dict[str, Any], subcommand: str, config: Any) -> None:
    """Refuse settings that do not go with the checkpoint.

    Raises:
        RequestError: the message names both values and what to do.
    """
    if subcommand == "fit" and "optimizer_states" not in checkpoint:
        raise RequestError(f"{path} has no state of the optimizer, so no fit can go on from it; it can be tested.")
    if (problem := schema_error(checkpoint, NEEDED.get(subcommand, {}))) is not None:
        raise RequestError(f"{path} is not enough to {subcommand} with: its {problem}.")
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


def inexact(changed: Iterable[str]) -> list[str]:
    """Return those of the `changes` that change which images come when."""
    return [change for change in changed if change.startswith(ORDER)]


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def _check_optimizer(path: Path, trained: Mapping[str, Any] | None, config: Any) -> None:
    if trained is not None and config.optimizer.class_path != trained["class_path"]:
        raise RequestError(
            f"optimizer is {config.optimizer.class_path}, but {path} holds the state of {trained['class_path']}, which "
            "another optimizer can't go on from. Leave optimizer out, or start without this checkpoint."
        )


def as_plain(init: Any) -> dict[str, Any]:
    """Return class_path and init_args as plain values."""
    plain: dict[str, Any] = init.as_dict()
    return {"init_args": {}, **plain}


def _check_limits(path: Path, checkpoint: dict[str, Any], config: Any) -> None:
    done = checkpoint_files.position(checkpoint)
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
