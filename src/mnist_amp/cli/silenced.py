"""Warnings and log lines of Lightning and torch that are not printed, each with the reason."""

import logging
import os
import threading
import warnings

from mnist_amp.cli.arguments import DEBUG

WARNINGS = (
    r".*Please use the new API settings to control TF32.*",  # Lightning's own call of torch 2.9 to 2.11
    r".*torch.distributed.nn.functional.all_gather is deprecated.*",  # Lightning's own call of torch
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning's own call of torch
    r".*AMP with fp16 is not supported on CPU.*",  # the banner names the effective precision
    r".*The number of training batches .* is smaller than the logging interval.*",  # epochs are logged anyway
    r".*Experiment logs directory .* exists and is not empty.*",  # it is new, and has only config.yaml
    r".*callbacks used to create the checkpoint need to be provided.*",  # an evaluation needs no callbacks of a fit
    r".*monitor='val_accuracy'.* could not find the monitored key.*",  # an epoch without validation
    r".*The checkpoint was not created with WeightAveraging.*",  # `changed` in the banner reports it
    r".*Total length of `list` across ranks is zero.*",  # no validation images, as requested
    r".*It is recommended to use `self.log\(.*sync_dist=True.*",  # the logged metrics are those of all processes
)
ANOMALY = r"Error detected in \w+Backward"  # the traceback of detect_anomaly; the error message says how to see it
LOGGERS = (
    "lightning.fabric.strategies.launchers.subprocess_script",  # `processes` reports it
    "lightning.fabric.utilities.distributed",  # the banner reports it, as the next two
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.utilities.rank_zero",
)
DRAWING = "matplotlib"


def levels() -> dict[str, int]:
    """Return the levels of the loggers that are silenced."""
    return {name: logging.getLogger(name).level for name in (DRAWING, *LOGGERS)}


def silence_imports() -> None:
    """Silence what is logged while torch, Lightning and Matplotlib are imported. It imports none of them."""
    # that its folder in HOME can't be written; it uses a temporary folder then
    logging.getLogger(DRAWING).setLevel(logging.ERROR)


def silence() -> None:
    """Silence them in this process."""
    for pattern in WARNINGS if os.environ.get(DEBUG) else (*WARNINGS, ANOMALY):
        warnings.filterwarnings("ignore", pattern)
    # on damaged metadata of image files; here, because a thread that reads one can't set filters for itself alone
    warnings.filterwarnings("ignore", module=r"PIL\.")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints that it starts, and that there is no GPU
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = _except_hook


def _except_hook(args: threading.ExceptHookArgs) -> None:
    """Print no traceback of a thread that can't write, such as TensorBoard's: the main thread reports that."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)
