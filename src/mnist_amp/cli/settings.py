"""Which settings make no sense, checked before anything is made."""

import math
import operator
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mnist_amp.errors import UsageError

# what a number must be, in the words of the message
RANGES = {
    "optimizer.init_args.lr": "above 0",
    "model.hidden_dim": "at least 1 and below 2147483648",
    "model.steps_per_execution": "at least 1",
    "data.batch_size": "at least 1 and at most 60000",
    "data.val_size": "at least 0 and below 60000",
    "data.seed": "at least 0 and at most 4294967295",  # numpy's limit
    "seed_everything": "at least 0 and at most 4294967295",
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
    "checkpoint.every_n_train_steps": "at least 0",
    "scaler.init_scale": "above 0 and at most 1000000000000",
    "scaler.growth_factor": "above 1",
    "scaler.backoff_factor": "above 0 and below 1",
    "scaler.growth_interval": "at least 1",
    # of compare, profile and demo
    "seeds": "at least 0",
    "rounds": "at least 1",
    "seconds": "above 0",
    "steps": "at least 1",
    "warmup": "at least 0",
    "port": "at least 0 and at most 65535",
}
COMPARISONS = {"above": operator.gt, "at least": operator.ge, "below": operator.lt, "at most": operator.le}
NEEDED = (
    *("data.data_dir", "data.batch_size", "data.val_size", "model.hidden_dim", "seed_everything", "optimizer"),
    *("model.steps_per_execution", "trainer.accumulate_grad_batches", "matmul_precision", "scaler"),
)
MONITORED = ("train_loss", "train_accuracy", "train_loss_step", "val_loss", "val_accuracy")
TUNERS = {"LearningRateFinder": "optimizer.lr", "BatchSizeFinder": "data.batch_size"}


def check(config: Mapping[str, Any]) -> None:
    """Refuse numbers that Lightning or torch would fail on later, or take without doing anything.

    Args:
        config: of a subcommand.

    Raises:
        UsageError: the message names the setting and its range, or what it can't be combined with.
    """
    root = str(_lookup(config, "trainer.default_root_dir"))
    if "://" in root:
        raise UsageError(f"trainer.default_root_dir is {root}; runs are written to folders of this machine.", "")
    for key in NEEDED:
        # which the parser lets pass in a file; evaluation has no scaler
        if _lookup(config, key) is None and key.partition(".")[0] in config:
            raise UsageError(f"{key} is null; leave it out to have its default.", key)
    _check_callbacks(config)
    _check_trainer(config)
    for key, bounds in RANGES.items():
        value, name = _lookup(config, key), key.replace(".init_args", "")
        if isinstance(value, int | float) and not isinstance(value, bool) and not _is_within(value, bounds):
            raise UsageError(f"{name} is {value}; it must be {bounds}.", name)


def _is_within(value: float, bounds: str) -> bool:
    stated = re.findall(rf"({'|'.join(COMPARISONS)}) (\d+)", bounds)
    return f"or {value} for" in bounds or (
        abs(value) < math.inf and all(COMPARISONS[word](value, int(bound)) for word, bound in stated)
    )


def _check_trainer(config: Mapping[str, Any]) -> None:
    strategy, max_time = _lookup(config, "trainer.strategy"), _lookup(config, "trainer.max_time")
    start = str(_lookup(strategy, "init_args.start_method") or strategy)
    if re.match(r"(ddp_)?(spawn|fork|notebook)", start):
        raise UsageError(
            f"trainer.strategy is {start}, whose processes can't hand back the figures of the run. Take ddp.",
            "trainer.strategy",
        )
    if max_time is not None and _seconds(max_time) <= 0:
        raise UsageError(f"trainer.max_time is {max_time}; it must be above 0.", "trainer.max_time")


def _seconds(max_time: Any) -> float:
    """Return the seconds of a time as Lightning takes it; of one that it does not take, which it says, infinity."""
    try:
        if isinstance(max_time, str):
            max_time = dict(zip(("days", "hours", "minutes", "seconds"), map(int, max_time.split(":")), strict=True))
        return float((timedelta(**max_time) if isinstance(max_time, Mapping) else max_time).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return math.inf


def _check_callbacks(config: Mapping[str, Any]) -> None:
    """Refuse what does not fit in here, and to wait for figures that there are none of, which Lightning says late."""
    validates = _lookup(config, "data.val_size") != 0 and _lookup(config, "trainer.limit_val_batches") != 0
    given = _lookup(config, "trainer.callbacks") or []
    for part in (*(given if isinstance(given, list) else [given]), _lookup(config, "lr_scheduler")):
        monitor, name = _lookup(part, "init_args.monitor"), str(_lookup(part, "class_path")).rpartition(".")[2]
        if name in TUNERS:
            raise UsageError(
                f"{name} trains for a while and begins anew, which a run that can be gone on with exactly can't. "
                f"Leave it out, and give {TUNERS[name]}.",
                "trainer.callbacks",
            )
        if not monitor:
            continue
        if monitor not in MONITORED:
            raise UsageError(f"{name} monitors {monitor}; what there is to monitor is {', '.join(MONITORED)}.", "")
        if monitor.startswith("val_") and not validates:
            raise UsageError(
                f"{name} monitors {monitor}, but no images are held out: data.val_size or trainer.limit_val_batches is "
                f"0. Hold some out, or monitor {str(monitor).replace('val', 'train')}.",
                "",
            )


def endless(trainer: Any) -> str | None:
    """Say where a run ends that nothing was told to end; None if something was."""
    if trainer.max_steps != -1 or trainer.max_time or trainer.fast_dev_run:
        return None
    if trainer.max_epochs is None:
        return "after 1,000 epochs, Lightning's limit, as trainer.max_epochs is null; Ctrl-C ends it with a checkpoint"
    if trainer.max_epochs == -1:
        return "never by itself, as trainer.max_epochs is -1; Ctrl-C ends it with a checkpoint"
    return None


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config
