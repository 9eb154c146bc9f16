"""Settings that Lightning or torch would fail on late, or accept without effect. They are refused before a run begins.

The ranges of this project's own settings are in the types of their parameters, see `mnist_amp.number_types`.
"""

import math
import operator
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from mnist_amp.errors import UsageError

# Lightning's and torch's own settings, with the range as the message states it
RANGES = {
    "optimizer.init_args.lr": "above 0",
    "trainer.max_epochs": "at least 1, or -1 for no limit",
    "trainer.max_steps": "at least 1, or -1 for no limit",
    "trainer.limit_train_batches": "above 0",
    "trainer.accumulate_grad_batches": "at least 1",
    "trainer.gradient_clip_val": "at least 0",
    "trainer.log_every_n_steps": "at least 0",
    "trainer.check_val_every_n_epoch": "at least 1",
    "trainer.val_check_interval": "above 0",
    "trainer.num_sanity_val_steps": "at least 0, or -1 for no limit",
    "trainer.min_epochs": "at least 0",
    "trainer.min_steps": "at least 0",
}
COMPARISONS = {"above": operator.gt, "at least": operator.ge}
# the parser lets a config file set these to null; those of any module, and those of this project's
NOT_NULL = ("seed_everything", "trainer.accumulate_grad_batches", "matmul_precision", "scaler")
OWN_NOT_NULL = ("data.data_dir", "data.batch_size", "network", "optimizer", "model.steps_per_execution")
MONITORED = ("train_loss", "train_accuracy", "train_loss_step", "val_loss", "val_accuracy")
TUNERS = {"LearningRateFinder": "optimizer.lr", "BatchSizeFinder": "data.batch_size"}


def check(config: Mapping[str, Any]) -> None:
    """Refuse settings that can't work, before a run begins.

    Args:
        config: of a subcommand.

    Raises:
        UsageError: the message names the setting and its range, or the setting that it can't be combined with.
    """
    _check_not_null(config, OWN_NOT_NULL)
    _check_callbacks(config)
    check_trainer(config)


def check_trainer(config: Mapping[str, Any]) -> None:
    """Refuse settings that can't work with any module, as `check` does; it knows nothing of this project's module."""
    _check_not_null(config, NOT_NULL)
    _check_trainer(config)
    _check_loggers(config)
    for key, bounds in RANGES.items():
        value, name = _lookup(config, key), key.replace(".init_args", "")
        if isinstance(value, int | float) and not isinstance(value, bool) and not _is_within(value, bounds):
            raise UsageError(f"{name} is {value}; it must be {bounds}.", name)


def check_times(config: Mapping[str, Any], written: Iterable[tuple[str, Any]]) -> None:
    """Refuse a number that is written like a time: the parser reads `1:30` as 90, in the manner of YAML 1.1.

    Args:
        config: of a subcommand, parsed.
        written: the options of the command line and of files, before they are parsed.
    """
    for key, text in written:
        if isinstance(text, str) and re.fullmatch(r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+", text):
            value = _lookup(config, key)
            if isinstance(value, int | float):
                raise UsageError(
                    f"{key} can't be {text}, which would be read as {value}. Write a number as usual, and a time with "
                    "two digits in each part, as in 01:00:00:00 (days:hours:minutes:seconds).",
                    key,
                )


def endless(trainer: Any) -> str | None:
    """Describe the end of a run that has no limit of epochs, steps or time; None if it has a limit."""
    if trainer.max_steps != -1 or trainer.max_time or trainer.fast_dev_run:
        return None
    if trainer.max_epochs is None:
        return "after 1,000 epochs, Lightning's limit, because trainer.max_epochs is null; Ctrl-C saves and ends it"
    if trainer.max_epochs == -1:
        return "never by itself, because trainer.max_epochs is -1; Ctrl-C saves and ends it"
    return None


def _is_within(value: float, bounds: str) -> bool:
    word, bound = re.findall(rf"({'|'.join(COMPARISONS)}) (\d+)", bounds)[0]
    return f"or {value} for" in bounds or (abs(value) < math.inf and COMPARISONS[word](value, int(bound)))


def _check_not_null(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if _lookup(config, key) is None and key.partition(".")[0] in config:  # a command may lack the group
            raise UsageError(f"{key} is null; leave it out to use its default.", key)


def _check_trainer(config: Mapping[str, Any]) -> None:
    root = str(_lookup(config, "trainer.default_root_dir"))
    if "://" in root:
        raise UsageError(f"trainer.default_root_dir is {root}; give a folder of this machine.", "")
    strategy, max_time = _lookup(config, "trainer.strategy"), _lookup(config, "trainer.max_time")
    start = str(_lookup(strategy, "init_args.start_method") or strategy)
    if re.match(r"(ddp_)?(spawn|fork|notebook)", start):
        raise UsageError(
            f"trainer.strategy is {start}, whose processes can't return the metrics of the run. Use ddp.",
            "trainer.strategy",
        )
    if max_time is not None and _seconds(max_time) <= 0:
        raise UsageError(f"trainer.max_time is {max_time}; it must be above 0.", "trainer.max_time")
    for key in ("trainer.max_time", "trainer.val_check_interval"):
        time = _lookup(config, key)
        if isinstance(time, str) and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", time):
            text = f"{key} can't be {time}; a time is days:hours:minutes:seconds, such as 00:00:15:00."
            raise UsageError(text, key)


def _seconds(max_time: Any) -> float:
    """Return the seconds of a time in one of Lightning's forms; infinity for another form, which Lightning refuses."""
    try:
        if isinstance(max_time, str):
            max_time = dict(zip(("days", "hours", "minutes", "seconds"), map(int, max_time.split(":")), strict=True))
        return float((timedelta(**max_time) if isinstance(max_time, Mapping) else max_time).total_seconds())
    except (TypeError, ValueError):
        return math.inf


def _check_loggers(config: Mapping[str, Any]) -> None:
    """Refuse a CSVLogger that would delete the metrics of another run, as Lightning's does with a `version`."""
    given = _lookup(config, "trainer.logger")
    for logger in given if isinstance(given, list) else [given]:
        settings = _lookup(logger, "init_args") or {}
        if str(_lookup(logger, "class_path")).endswith(".CSVLogger") and settings.get("version") is not None:
            version = settings["version"]
            folder = Path(settings["save_dir"], settings.get("name") or "")
            metrics = folder / (version if isinstance(version, str) else f"version_{version}") / "metrics.csv"
            if metrics.is_file():
                text = f"trainer.logger would overwrite {metrics}. Give another version, or leave it out for a new one."
                raise UsageError(text, "trainer.logger")


def _check_callbacks(config: Mapping[str, Any]) -> None:
    """Refuse callbacks that change settings during a run, and a monitored metric that the run does not have."""
    validates = _lookup(config, "data.val_size") != 0 and _lookup(config, "trainer.limit_val_batches") != 0
    given = _lookup(config, "trainer.callbacks") or []
    for part in (*(given if isinstance(given, list) else [given]), _lookup(config, "lr_scheduler")):
        monitor, name = _lookup(part, "init_args.monitor"), str(_lookup(part, "class_path")).rpartition(".")[2]
        if name in TUNERS:
            raise UsageError(
                f"{name} trains for some steps and starts again, so the run could not be resumed exactly. "
                f"Leave it out, and give {TUNERS[name]}.",
                "trainer.callbacks",
            )
        if monitor and monitor not in MONITORED:
            raise UsageError(f"{name} monitors {monitor}; the metrics are {', '.join(MONITORED)}.", "")
        if monitor and monitor.startswith("val_") and not validates:
            raise UsageError(
                f"{name} monitors {monitor}, but the run does not validate: data.val_size or "
                f"trainer.limit_val_batches is 0. Raise it, or monitor {monitor.replace('val', 'train')}.",
                "",
            )


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config
