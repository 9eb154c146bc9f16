"""How checkpoints are written and read: atomically, and without running code from them."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from mnist_amp.errors import RunError
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

    def __init__(self) -> None:
        super().__init__()
        self.checked = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        # to memory first: when the disk is full, torch.save raises an error that does not mention the disk
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        if not self.checked:  # the first one shows it, and later ones have the same kinds of values
            check_plain(checkpoint, buffer)
            self.checked = True
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return checkpoint_files.read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def check_plain(checkpoint: dict[str, Any], saved: io.BytesIO) -> None:
    """Check that a checkpoint can be loaded without running code from it.

    Args:
        checkpoint: its content.
        saved: the same, as torch.save has written it.

    Raises:
        RunError: a part of it, such as the state of a callback, holds other objects than tensors and plain values.
    """
    if _is_plain(saved):
        return
    callbacks = {f"callbacks.{name}": state for name, state in checkpoint.get("callbacks", {}).items()}
    for name, part in {**checkpoint, "callbacks": None, **callbacks}.items():
        file = io.BytesIO()
        torch.save(part, file)
        if not _is_plain(file):
            raise RunError(
                f"the part {name} of the checkpoint holds objects other than tensors and plain values. No command "
                "would load it, because that could run code, so the run is stopped. Give the state plain values."
            )


def _is_plain(saved: io.BytesIO) -> bool:
    saved.seek(0)
    try:
        torch.load(saved, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True
