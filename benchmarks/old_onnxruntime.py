"""Runs exported ONNX files in old versions of onnxruntime, and compares them with the installed version.

    python benchmarks/old_onnxruntime.py lightning_logs/export/version_0

For each version it makes a virtual environment in a temporary folder, with a Python that the version supports, of PATH
or of pyenv. A version without such a Python, or that pip can't install, is reported and left out.
Prints for each file and version how many guesses differ, for 1,000 test images, and the largest difference of a logit.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# the oldest with opset 14, with opset 17, and the oldest for Python 3.11; and the Pythons that they support
VERSIONS = {"1.8.0": ("3.8", "3.9"), "1.12.0": ("3.8", "3.9", "3.10"), "1.15.0": ("3.11", "3.10", "3.9", "3.8")}
IMAGES = 1000
# runs in the old Python: the logits of images.npy of each file that is named, or the error
PROGRAM = """
import sys
import numpy
import onnxruntime

images = numpy.load("images.npy")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
for name in sys.argv[1:]:
    try:
        session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        numpy.save(name + ".npy", session.run(["logits"], {"images": images})[0])
    except Exception as error:
        with open(name + ".error", "w") as file:
            file.write(" ".join(str(error).split()))
"""


class UnavailableError(RuntimeError):
    """A version can't be tried on this machine; the message tells why."""


class Comparison(NamedTuple):
    """A file in another version of onnxruntime.

    Attributes:
        guesses: that differ.
        difference: the largest of a logit.
        error: of the version, if it does not run the file.
    """

    guesses: int = 0
    difference: float = 0.0
    error: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of an export")
    parser.add_argument("--data_dir", default="data", help="folder of MNIST")
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS), choices=VERSIONS, help="of onnxruntime")
    args = parser.parse_args()
    files = sorted(args.folder.glob("*.onnx"))
    images = test_images(Path(args.data_dir), image_shape(files[0]))
    for version in args.versions:
        print(f"onnxruntime {version}")
        try:
            for name, found in compare(version, files, images).items():
                print(f"  {name}: {found.error or f'{found.guesses} guesses differ, {found.difference:.2g}'}")
        except UnavailableError as error:
            print(f"  not tried: {error}")


def image_shape(file: Path) -> tuple[int, int, int]:
    """Return the channels, height and width of a file's images."""
    import onnx

    _, channels, height, width = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    return channels.dim_value, height.dim_value, width.dim_value


def test_images(data_dir: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return test images (N, C, H, W) of MNIST, in the shape (C, H, W)."""
    from torch.nn.functional import interpolate

    from mnist_amp.data import mnist

    mnist.prepare(data_dir)
    images = mnist.load(data_dir, train=False)[0][:IMAGES].unsqueeze(1)
    return interpolate(images, shape[1:]).expand(-1, shape[0], -1, -1).numpy()


def compare(version: str, files: Sequence[Path], images: NDArray[np.uint8]) -> dict[str, Comparison]:
    """Run files in a version of onnxruntime, and in the installed one.

    Raises:
        UnavailableError: there is no Python for the version, or pip can't install it.
    """
    python = find_python(VERSIONS[version])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in files:
            shutil.copy2(file, folder)
        np.save(folder / "images.npy", images)
        old = install(python, version, folder / "venv")
        names = [file.name for file in files]
        subprocess.run([old, "-c", PROGRAM, *names], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        return {name: _compare(folder / name, images) for name in names}


def _compare(file: Path, images: NDArray[np.uint8]) -> Comparison:
    import onnxruntime

    error = file.with_name(f"{file.name}.error")
    if error.exists():
        return Comparison(error=error.read_text(encoding="utf-8"))
    old = np.load(f"{file}.npy")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    new = session.run(["logits"], {"images": images})[0]
    return Comparison(int((old.argmax(1) != new.argmax(1)).sum()), float(np.abs(old - new).max()))


def find_python(versions: Sequence[str]) -> str:
    """Return a program of one of these Pythons, such as 3.9."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for version in versions:
        named = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]
        for program in filter(None, named):
            if subprocess.run([program, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
                return program
    raise UnavailableError(f"it needs Python {' or '.join(versions)}")


def install(python: str, version: str, folder: Path) -> str:
    """Install a version of onnxruntime into a new virtual environment; return its Python."""
    program = str(folder / "bin" / "python")
    for command in (
        [python, "-m", "venv", str(folder)],
        [program, "-m", "pip", "install", "--quiet", "--no-compile", f"onnxruntime=={version}", "numpy<2"],
    ):
        done = subprocess.run(command, env=_clean_environment(), capture_output=True, text=True)
        if done.returncode:
            raise UnavailableError(f"{' '.join(command[1:])} failed: {done.stderr.strip().splitlines()[-1:]}")
    return program


def _clean_environment() -> dict[str, str]:
    """Return the environment without the packages of this process."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


if __name__ == "__main__":
    main()
