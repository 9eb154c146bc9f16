"""The checkpoint files of runs: found by name, read without running code from them, and verified."""

import contextlib
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor

from mnist_amp.errors import RequestError, warn
from mnist_amp.runs import checkpoint_conversion, weights_file
from mnist_amp.runs.checkpoint_contents import RunInfo
from mnist_amp.runs.checkpoint_schema import CHECKPOINT, schema_error
from mnist_amp.runs.folders import logs_dir, run_dirs
from mnist_amp.runs.weights_file import WEIGHTS_ALONE

OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # a pickled number
REQUIRED = {"state_dict", "global_step", "loops", "hyper_parameters"}


def resolve(ckpt_path: str, root: Path, *, folder_means: str, option: str = "ckpt_path") -> Path:
    """Return the checkpoint file that `--ckpt_path` names.

    Args:
        ckpt_path: `best` or `last` (of the newest run that has it), a file, or the folder of a run.
        root: folder that holds `lightning_logs`.
        folder_means: the checkpoint to use if a folder is named, `best` or `last`.
        option: the one that names the checkpoint, for messages.

    Raises:
        RequestError: there is no such checkpoint.
    """
    if ckpt_path in ("best", "last"):
        return _newest(root, ckpt_path, option)
    if "://" in ckpt_path:
        raise RequestError(f"{ckpt_path} is not a local file. Download the checkpoint first.")
    path = Path(ckpt_path)
    if path.is_dir():
        path = path / "checkpoints" / f"{folder_means}.ckpt"
    if not path.is_file():
        known = [str(file) for folder in run_dirs(root) for file in sorted(folder.glob("checkpoints/*.ckpt"))]
        hint = f"There are {', '.join(known[:6])}." if known else f"No run under {logs_dir(root)} has one."
        raise RequestError(f"there is no checkpoint at {path}. {hint}")
    return path


def newest_readable(root: Path, beside: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest readable checkpoint and its content: in the folder of a damaged one, else in another run."""
    found = [file for file in beside.parent.glob("*.ckpt") if file != beside]
    others = [file for folder in run_dirs(root) for file in folder.glob("checkpoints/*.ckpt")]
    for group in (found, [file for file in others if file.parent != beside.parent]):
        for file in sorted(filter(Path.is_file, group), key=lambda file: file.stat().st_mtime, reverse=True):
            with contextlib.suppress(RequestError):
                return file, read(file)
    return None


def read(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU and verify it. Code in the file is never run.

    Weights alone, as in `model.pth` or a .safetensors file, become a checkpoint that has trained nothing.

    Raises:
        RequestError: the file is damaged, is not a checkpoint, or has non-finite weights.

    Examples:
        >>> read(Path("lightning_logs/version_0/checkpoints/last.ckpt"))["global_step"]  # doctest: +SKIP
        4300
    """
    checkpoint = _load_any(path)
    checkpoint_conversion.convert(checkpoint)
    if not isinstance(checkpoint, dict) or not set(checkpoint) >= REQUIRED:
        raise RequestError(f"{path} is not a training checkpoint. {_advice(checkpoint)}")
    if (problem := schema_error(checkpoint, CHECKPOINT)) is not None:
        raise RequestError(f"{path} is damaged, or a checkpoint of another project: its {problem}.")
    trained = checkpoint.get("current_model_state", {})  # while a callback averages the weights
    tensors = {**checkpoint["state_dict"], **trained, **dict(_optimizer_tensors(checkpoint))}
    non_finite = [name for name, value in tensors.items() if not value.isfinite().all()]
    names = ", ".join(non_finite)
    if non_finite and WEIGHTS_ALONE in checkpoint:
        raise RequestError(f"{path} has values in {names} that are not finite in float32. Use other weights.")
    if non_finite:
        raise RequestError(
            f"{path} has non-finite values in {names}, because its training diverged. Use an earlier checkpoint."
        )
    return checkpoint


def folder_of(path: Path) -> Path:
    """Return the folder of the run that a checkpoint file lies in. A file outside of any run has its own folder."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def source_run_dir(path: Path, checkpoint: dict[str, Any]) -> Path:
    """Return the folder of the run that wrote a checkpoint. Lightning writes SLURM's checkpoints outside of it."""
    in_run = path.parent.name == "checkpoints"
    return folder_of(path) if in_run else Path(RunInfo.of(checkpoint).folder or path.parent)


def slurm_job() -> str | None:
    """Return the number of this SLURM job, which stays the same when the job is requeued; None without SLURM."""
    return os.environ.get("SLURM_JOB_ID") if SLURMEnvironment.detect() else None


def requeued_checkpoint(root: Path) -> Path | None:
    """Return the newest checkpoint that Lightning wrote for this SLURM job before it was requeued; None without one."""
    if slurm_job() is None:
        return None
    found = {int(path.stem[9:]): path for path in root.glob("hpc_ckpt_*.ckpt") if path.stem[9:].isdecimal()}
    if not found:
        return None
    newest = found[max(found)]
    return newest if RunInfo.of(read(newest)).slurm_job == slurm_job() else None


def _optimizer_tensors(checkpoint: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for optimizer in checkpoint.get("optimizer_states", []):
        for number, state in optimizer["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    yield f"{name} of parameter {number}", value


def _load_any(path: Path) -> Any:
    """Load a file of any format; weights alone become a checkpoint."""
    if weights_file.is_safetensors(path):
        weights, metadata = weights_file.read_safetensors(path)
        return weights_file.as_checkpoint(path, weights, metadata, lightning.__version__)
    content = _load(path)
    if not weights_file.is_plain_weights(content):
        return content
    return weights_file.as_checkpoint(path, content, weights_file.metadata_within(content), lightning.__version__)


def _advice(content: Any) -> str:
    """Return what to do with a file that is no checkpoint, such as one of a training loop of plain PyTorch."""
    parts = content.items() if isinstance(content, dict) else []
    key = next((key for key, value in parts if weights_file.is_plain_weights(value)), None)
    if key is None:
        return "A run keeps its checkpoints in its folder checkpoints/."
    return f"The part {key!r} of its content holds weights: save this part in a file of its own, with torch.save."


def _load(path: Path) -> Any:
    """Load a file that torch.save wrote, after its checksums are verified. torch.load does not verify them."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # zipfile raises many kinds of errors for damaged files
        torn = str(error)
    if torn is not None and _is_of_old_torch(path):
        raise RequestError(f"{path} has the format of torch before 1.6. Load it with torch, and save it again.")
    if torn is not None:
        size = path.stat().st_size
        raise RequestError(f"{path} ({size:,} bytes) is not a checkpoint, or it is truncated or damaged.")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of unusual kinds of tensors
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own texts are about its internals, and some advise to allow code
        raise RequestError(
            f"{path} holds objects other than tensors and plain values. "
            "It is refused because loading it could run code."
        ) from error


def _is_of_old_torch(path: Path) -> bool:
    """Whether a file begins as torch.save began its files before 1.6: they have no checksums."""
    with path.open("rb") as file:
        return file.read(len(OLD_TORCH)) == OLD_TORCH


def _newest(root: Path, name: str, option: str) -> Path:
    """Return the `best` or `last` of the newest run. A missing `last` may have others beside it that can replace it."""
    found = [folder / "checkpoints" / f"{name}.ckpt" for folder in run_dirs(root)]
    there = [path for path in found if path.is_file() or path.is_symlink()]  # a broken link is damage to report
    if not there and name == "last":
        there = [path for path in found if any(map(Path.is_file, path.parent.glob("*.ckpt")))]
    if there:
        if there[0] != found[0]:
            newest, used = (path.parents[1] for path in (found[0], there[0]))
            warn(f"{newest} has no {name} checkpoint yet, so the one of {used} is used.")
        return there[0]
    raise RequestError(
        f"there is no run with a checkpoint under {logs_dir(root).absolute()}. "
        f"Train one with `mnist-amp fit`, or name a checkpoint with --{option}."
    )
