"""A Trainer for tests that writes and prints nothing."""

from typing import Any

from lightning.pytorch import Trainer


def small_trainer(**settings: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, **quiet, **settings})
