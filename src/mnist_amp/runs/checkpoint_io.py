"""How checkpoints are written and read: atomically, and without running code from them."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.atomic_files import atomic_write


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints with `atomic_write` and reads them with `checkpoint_files.read`.

    Lightning's own plugin writes to a temporary folder. Where that is another file system, it copies over the old
    checkpoint, and a kill leaves a part of one. It also hides that a folder is not writable, and runs code in files
    from a URL.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(plugins=[AtomicCheckpointIO()], logger=False, enable_checkpointing=False)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        # to memory first: when the disk is full, torch.save raises an error that does not mention the disk
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return checkpoint_files.read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
