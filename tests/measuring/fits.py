"""Settings of a small fit that measurements run on."""

from pathlib import Path
from typing import Any

TINY = {"network.hidden_dim": 16, "data.batch_size": 32, "trainer.accelerator": "cpu", "trainer.precision": "32-true"}
ENDLESS: dict[str, Any] = {"max_epochs": -1, "limit_val_batches": 0}


def tiny(data_dir: Path, **overrides: Any) -> dict[str, Any]:
    return {**TINY, "data.data_dir": str(data_dir), **overrides}
