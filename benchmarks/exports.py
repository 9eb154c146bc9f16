"""Every format and dtype of `mnist-amp export`: size, speed, and agreement with the checkpoint on the test images.

    python benchmarks/exports.py

Trains with `mnist-amp fit` in a temporary folder, unless --ckpt_path names a checkpoint, and exports as a user does.
Saves all results to docs/results/exports-MACHINE.json, and the table to exports-MACHINE.md. About a minute on 2 idle
CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import MACHINE, RESULTS, keep
from mnist_amp.inference.export import INT8
from mnist_amp.inference.export_formats import FORMATS
from mnist_amp.inference.export_report import FileRow, cells
from mnist_amp.inference.export_results import Accuracy
from mnist_amp.inference.pixel_network import DTYPES
from mnist_amp.reporting.tables import markdown
from mnist_amp.wording import counted

OPTIONS = (f"--formats=[{','.join(FORMATS)}]", f"--dtypes=[{','.join((*DTYPES, INT8))}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, help="a checkpoint; by default, the best of a new run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.ckpt_path is None:
            mnist_amp(folder, "fit")
        given = [] if args.ckpt_path is None else [f"--ckpt_path={args.ckpt_path.absolute()}"]
        mnist_amp(folder, "export", *OPTIONS, *given)
        exported = Path(folder, "lightning_logs", "export", "version_0", "results.json").read_text(encoding="utf-8")
    command = "exports.py" if args.ckpt_path is None else f"exports.py --ckpt_path {args.ckpt_path}"
    keep(args.results / f"exports-{MACHINE}.json", command, table, export=json.loads(exported))


def mnist_amp(folder: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "mnist_amp", *arguments], cwd=folder, check=True)


def table(record: dict[str, Any]) -> str:
    """Return a Markdown table of the files."""
    found = record["export"]
    run, accuracy = found["run"], found["accuracy"]
    head, *rows = cells(map(row, found["files"]))
    return "\n".join(
        [
            markdown([head, *([f"`{file}`", *others] for file, *others in rows)]),
            "",
            f"The checkpoint, {network(found)} after {counted(run['epochs'], 'epoch')} in "
            f"{run['precision']}, is right on {accuracy['correct'] / accuracy['images']:.2%} of the "
            f"{accuracy['images']:,} test images; its largest logit there is {found['largest_logit']:.1f}.",
            "",
            f"On: {record['device']}, torch {record['versions']['torch']}, "
            f"onnxruntime {onnxruntime(found)}, {record['date']}. `{record['command']}`",
            "",
        ]
    )


def row(file: dict[str, Any]) -> FileRow:
    return FileRow(**{name: file[name] for name in FileRow._fields} | {"accuracy": Accuracy(**file["accuracy"])})


def network(found: dict[str, Any]) -> str:
    """Return the name of the network, and its arguments."""
    init = found["files"][0]["network"]
    arguments = ", ".join(f"{name}={value!r}" for name, value in init.get("init_args", {}).items())
    return f"{init['class_path'].rpartition('.')[2]}({arguments})"


def onnxruntime(found: dict[str, Any]) -> str:
    return str(next(file["versions"]["onnxruntime"] for file in found["files"] if "onnxruntime" in file["versions"]))


if __name__ == "__main__":
    main()
