"""The checkpoints of runs: found by name, read and verified, and never run as code."""

import contextlib
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor

from mnist_amp.errors import RequestError, warn
from mnist_amp.runs.checkpoint_schema import CHECKPOINT, schema_error
from mnist_amp.runs.folders import logs_dir, run_dirs

# where a checkpoint keeps its run's configuration, as YAML, its folder, and the precision that was in effect
CONFIG_KEY = "mnist_amp_config"
FOLDER_KEY = "mnist_amp_folder"
PRECISION_KEY = "mnist_amp_precision"
JOB_KEY = "mnist_amp_slurm_job"
REQUIRED = {"state_dict", "epoch", "global_step", "loops", "hyper_parameters"}


def resolve(ckpt_path: str, root: Path, *, folder_means: str) -> Path:
    """Turn what `--ckpt_path` says into a checkpoint file.

    Args:
        ckpt_path: `best` or `last` (of the newest run that has one), a file, or a run's folder.
        root: folder that holds `lightning_logs`.
        folder_means: which checkpoint a folder stands for, `best` or `last`.

    Raises:
        RequestError: there is no such checkpoint.
    """
    if ckpt_path in ("best", "last"):
        return _newest(root, ckpt_path)
    if "://" in ckpt_path:
        raise RequestError(
            f"{ckpt_path} is not a file here: a checkpoint from elsewhere is refused. Download it first."
        )
    path = Path(ckpt_path)
    if path.is_dir():
        path = path / "checkpoints" / f"{folder_means}.ckpt"
    if not path.is_file():
        known = [str(file) for folder in run_dirs(root) for file in sorted(folder.glob("checkpoints/*.ckpt"))]
        hint = f"There are {', '.join(known[:6])}." if known else f"There are none under {logs_dir(root)} either."
        raise RequestError(f"there is no checkpoint at {path}. {hint}")
    return path


def newest_readable(root: Path, beside: Path) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest checkpoint that can be read: one beside a damaged one, else one of another run."""
    found = [file for file in beside.parent.glob("*.ckpt") if file != beside]
    others = [file for folder in run_dirs(root) for file in folder.glob("checkpoints/*.ckpt")]
    for group in (found, [file for file in others if file.parent != beside.parent]):
        for file in sorted(filter(Path.is_file, group), key=lambda file: file.stat().st_mtime, reverse=True):
            with contextlib.suppress(RequestError):
                return file, read(file)
    return None


def read(path: Path) -> dict[str, Any]:
    """Load a checkpoint's content to the CPU, without ever running code from it, and verify it.

    Raises:
        RequestError: the file is damaged or not a checkpoint, or has weights that are not finite.
    """
    checkpoint = _load(path)
    if not isinstance(checkpoint, dict) or not set(checkpoint) >= REQUIRED:
        plain = isinstance(checkpoint, dict) and all(isinstance(value, Tensor) for value in checkpoint.values())
        kind = "holds weights alone, as model.pth does" if plain else "is not a training checkpoint"
        raise RequestError(f"{path} {kind}; a run keeps its checkpoints in its folder checkpoints/.")
    if (problem := schema_error(checkpoint, CHECKPOINT)) is not None:
        raise RequestError(f"{path} is damaged, or a checkpoint of another project: its {problem}.")
    tensors = {**checkpoint["state_dict"], **dict(_optimizer_tensors(checkpoint))}
    non_finite = [name for name, value in tensors.items() if not value.isfinite().all()]
    if non_finite:
        raise RequestError(
            f"{path} has weights that are not finite, in {', '.join(non_finite)}: its training had diverged."
        )
    return checkpoint


def _optimizer_tensors(checkpoint: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for optimizer in checkpoint.get("optimizer_states", []):
        for number, state in optimizer["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    yield f"{name} of parameter {number}", value


def _load(path: Path) -> Any:
    """Load what torch.save wrote, if its checksums are right; torch.load does not verify them."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # what is not right in a zip file comes as many kinds of error
        torn = str(error)
    if torn is not None:
        size = path.stat().st_size
        raise RequestError(f"{path} ({size:,} bytes) is no checkpoint, or one that is cut short or damaged.")
    try:
        with warnings.catch_warnings(action="ignore"):  # what torch says of other kinds of tensors
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # with texts about torch's internals, some of which advise to allow code
        raise RequestError(
            f"{path} holds other things than weights and plain values. It is refused, as loading it could run code."
        ) from error


def position(checkpoint: dict[str, Any]) -> dict[str, int]:
    """Return how far a checkpoint's run is: the epochs it has behind it and its optimizer steps."""
    loop = checkpoint["loops"]["fit_loop"]
    begun = int(loop["epoch_progress"]["current"]["ready"])
    epochs = begun if loop["epoch_loop.batch_progress"]["is_last_batch"] else max(begun - 1, 0)
    return {"epochs": epochs, "step": int(checkpoint["global_step"])}


def folder_of(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint's run; for a file outside of any run, the file's own folder."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def origin(path: Path, checkpoint: dict[str, Any]) -> Path:
    """Return the folder of the run that wrote a checkpoint, wherever the checkpoint is: SLURM's is in none."""
    return path.parent.parent if path.parent.name == "checkpoints" else Path(checkpoint.get(FOLDER_KEY, path.parent))


def job() -> str | None:
    """Return SLURM's number of this job, which it keeps when it is started again; None without SLURM."""
    return os.environ.get("SLURM_JOB_ID") if SLURMEnvironment.detect() else None


def requeued(root: Path) -> Path | None:
    """Return the newest checkpoint that Lightning wrote for this very job, as SLURM has started it again."""
    if job() is None:
        return None
    found = {int(path.stem[9:]): path for path in root.glob("hpc_ckpt_*.ckpt") if path.stem[9:].isdecimal()}
    if not found:
        return None
    newest = found[max(found)]
    return newest if read(newest).get(JOB_KEY) == job() else None


def _newest(root: Path, name: str) -> Path:
    """Find the newest run's `best` or `last`; a `last` that is missing has others beside it that can take its place."""
    found = [folder / "checkpoints" / f"{name}.ckpt" for folder in run_dirs(root)]
    there = [path for path in found if path.is_file() or path.is_symlink()]  # a link to nothing is damage, to be said
    if not there and name == "last":
        there = [path for path in found if any(map(Path.is_file, path.parent.glob("*.ckpt")))]
    if there:
        if there[0] != found[0]:
            newest, taken = (path.parents[1] for path in (found[0], there[0]))
            warn(f"{newest} has no {name} checkpoint yet, so that of {taken} is taken.")
        return there[0]
    raise RequestError(
        f"there is no run with a checkpoint under {logs_dir(root).absolute()}. "
        "Train one with `mnist-amp fit`, or name a checkpoint with --ckpt_path."
    )
