"""Which settings make no sense, checked before anything is made."""

import math
from collections.abc import Mapping
from typing import Any

from mnist_amp.errors import UsageError

# key: least value, whether it may be that itself, and a value that stands for "no limit"
RANGES: dict[str, tuple[float, bool, int | None]] = {
    "optimizer.init_args.lr": (0, False, None),
    "trainer.max_epochs": (1, True, -1),
    "trainer.max_steps": (1, True, -1),
    "trainer.limit_train_batches": (0, False, None),
    "trainer.accumulate_grad_batches": (1, True, None),
    "trainer.gradient_clip_val": (0, True, None),
    "trainer.log_every_n_steps": (0, True, None),
    "trainer.check_val_every_n_epoch": (1, True, None),
    "trainer.val_check_interval": (0, False, None),
    "trainer.num_sanity_val_steps": (0, True, -1),
    "trainer.min_epochs": (0, True, None),
    "trainer.min_steps": (0, True, None),
    "checkpoint.every_n_train_steps": (0, True, None),
    "scaler.init_scale": (0, False, None),
    "scaler.growth_factor": (1, False, None),
    "scaler.backoff_factor": (0, False, None),
    "scaler.growth_interval": (1, True, None),
    "data.seed": (0, True, None),
    "seed_everything": (0, True, None),
}
NEEDED = (
    *("data.data_dir", "data.batch_size", "data.val_size", "model.hidden_dim", "seed_everything", "optimizer"),
    *("model.steps_per_execution", "trainer.accumulate_grad_batches", "matmul_precision", "scaler"),
)
MONITORED = ("train_loss", "train_accuracy", "train_loss_step", "val_loss", "val_accuracy")
MAX_SEED = 2**32 - 1  # numpy's


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
        if _lookup(config, key) is None and key.partition(".")[0] in config:  # which the parser lets pass in a file
            raise UsageError(f"{key} is null; leave it out to have its default.", key)
    _check_monitors(config)
    for key, (least, included, unlimited) in RANGES.items():
        value = _lookup(config, key)
        name = key.replace(".init_args", "")
        if not isinstance(value, int | float) or isinstance(value, bool) or value == unlimited:
            continue
        if not math.isfinite(value) or value < least or (value == least and not included):
            bound = f"{'at least' if included else 'above'} {least}"
            no_limit = "" if unlimited is None else f", or {unlimited} for no limit"
            raise UsageError(f"{name} is {value}; it must be {bound}{no_limit}.", name)
        if "seed" in name and value > MAX_SEED:
            raise UsageError(f"{name} is {value}; it must be at most {MAX_SEED}.", name)
        if key == "scaler.backoff_factor" and value >= 1:
            raise UsageError(f"{name} is {value}; it must be below 1.", name)


def _check_monitors(config: Mapping[str, Any]) -> None:
    """Refuse to wait for figures that there are none of; Lightning would fail after the first epoch."""
    validates = _lookup(config, "data.val_size") != 0 and _lookup(config, "trainer.limit_val_batches") != 0
    given = _lookup(config, "trainer.callbacks") or []
    for part in (*(given if isinstance(given, list) else [given]), _lookup(config, "lr_scheduler")):
        monitor = _lookup(part, "init_args.monitor")
        if not monitor:
            continue
        name = part["class_path"].rpartition(".")[2]
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
