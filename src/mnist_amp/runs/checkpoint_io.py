"""How checkpoints are written and read: whole or not at all, and never as code."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.atomic_files import atomic_write


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its place and then puts it there at once; reads with `checkpoint_files.read`.

    Lightning writes to a temporary folder and, where that is another file system, copies over the old checkpoint, which
    a kill leaves torn. It also hides a folder that can't be written to, and reads remote files with code in them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        # to memory first: torch.save to a full disk raises an error that says nothing of the disk
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as draft:
            draft.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return checkpoint_files.read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
