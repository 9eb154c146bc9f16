"""The effect of mixed precision on this machine: `mnist-amp compare`, `mnist-amp profile`, and a hand-written loop.

    python benchmarks/precision.py

Runs the two commands, and saves their reports. Then measures how many times as fast half precision is as float32, by a
hand-written PyTorch loop (`benchmarks/contenders.py`) and by the measurement of `compare`, in interleaved rounds, each
in its own process. The results go to docs/results, with `-cpu`, `-cpu-bf16` (a CPU with instructions for bfloat16) or
the name of the GPU in their names. About 13 minutes on 2 CPU cores.

    python benchmarks/precision.py --only tables

writes the Markdown of the saved reports again, without measuring, after their wording has changed.
"""

import argparse
import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import contenders
from machine import DEVICE, HALF, MACHINE, RESULTS, keep
from mnist_amp.data import mnist
from mnist_amp.measuring import compare_report, profile_report
from mnist_amp.measuring.compare_records import Comparison
from mnist_amp.measuring.fit_measurements import measure_speed
from mnist_amp.measuring.isolated_process import run_isolated
from mnist_amp.measuring.precisions import PRECISIONS
from mnist_amp.measuring.profile_records import ProfileResults
from mnist_amp.reporting.document import CHARTS_NOTE
from mnist_amp.reporting.tables import markdown
from mnist_amp.torch_internals import cpu_multiplies

SETTINGS = ((128, 64), (2048, 512))  # hidden_dim and batch size
BOTH = ("32-true", HALF)
SECONDS = 2.0  # of a measurement of a step
LATE = 4300  # steps: five epochs, as the guide trains
PARTS = ("compare", "profile", "ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*PARTS, "tables"], nargs="+", default=PARTS, help="default: all but tables")
    parser.add_argument("--rounds", type=int, default=5, help="of the ratio")
    parser.add_argument(
        "--settings", type=int, default=len(SETTINGS), help="of the ratio, the first ones: width and batch"
    )
    parser.add_argument("--late", type=int, default=LATE, help="steps before the gradients late in training")
    parser.add_argument("--compare", default="", help="options of `mnist-amp compare`")
    parser.add_argument("--profile", default="", help="options of `mnist-amp profile`")
    add_folders(parser)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    with working_folder(args.folder) as folder:
        if "compare" in args.only:
            keep_files(run("compare", folder, *shlex.split(args.compare)), args.results / f"compare-{MACHINE}")
        if "profile" in args.only:
            options = shlex.split(args.profile)
            keep_files(run("profile", folder, *options), args.results / f"profile-{MACHINE}")
            keep_gradients(run("profile", folder, *options, f"--warmup={args.late}"), args.results)
        if "ratio" in args.only:
            ratios(args.rounds, SETTINGS[: args.settings], folder / "data", args.results)
    write_tables(args.results)


def add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    text = "folder of the runs, which stays: a comparison that was stopped there is resumed; default: a temporary one"
    parser.add_argument("--folder", type=Path, help=text)


@contextmanager
def working_folder(path: Path | None) -> Iterator[Path]:
    """Yield a folder with MNIST in `data`: this one, which stays, or a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = path or Path(temporary)
        mnist.prepare(folder / "data")
        yield folder


def ratios(rounds: int, settings: Sequence[tuple[int, int]], data_dir: Path, results: Path) -> None:
    runs = []
    for turn in range(rounds):
        for hidden_dim, batch_size in settings:
            for precision in BOTH:
                case = (hidden_dim, batch_size, precision, str(data_dir))
                found: dict[str, Any] = {"hidden_dim": hidden_dim, "batch_size": batch_size, "precision": precision}
                found |= {"round": turn, "bare": by_hand(*case)}
                found["compare"] = run_isolated(by_compare, *case)
                print(found, flush=True)
                runs.append(found)
    keep(results / f"ratio-{MACHINE}.json", f"precision.py --only ratio --rounds {rounds}", ratio_table, runs=runs)


def by_hand(hidden_dim: int, batch_size: int, precision: str, data_dir: str) -> float:
    """Return the seconds of a step of the hand-written loop, over an epoch, in a process without Lightning."""
    options = {"hidden_dim": hidden_dim, "batch_size": batch_size, "precision": precision, "data_dir": data_dir}
    options |= {"epochs": 1, "device": DEVICE, "weights": Path(data_dir, "model.pth")}
    program = [sys.executable, contenders.__file__, "bound", *(f"--{key}={value}" for key, value in options.items())]
    output = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    seconds: float = json.loads(output.splitlines()[-1])["seconds"]
    return seconds / -(-mnist.TRAIN_SIZE // batch_size)


def by_compare(hidden_dim: int, batch_size: int, precision: str, data_dir: str) -> float:
    """Return the seconds of a step, by the measurement of `compare`."""
    own = {"network.hidden_dim": hidden_dim, "data.batch_size": batch_size, "data.data_dir": data_dir}
    own |= {"data.val_size": 0, "model.steps_per_execution": 50}
    measured, _ = measure_speed({}, {**PRECISIONS[precision], **own}, SECONDS)
    return measured.seconds


def medians(record: dict[str, Any]) -> list[dict[str, float]]:
    """Return the speed of half precision (float32 = 1) for each setting: medians of the rounds, measured both ways."""
    found = []
    for hidden_dim, batch_size in dict.fromkeys((run["hidden_dim"], run["batch_size"]) for run in record["runs"]):
        runs = [run for run in record["runs"] if (run["hidden_dim"], run["batch_size"]) == (hidden_dim, batch_size)]
        full, half = ([run for run in runs if run["precision"] == precision] for precision in BOTH)
        speeds = {
            way: statistics.median(slow[way] / fast[way] for slow, fast in zip(full, half, strict=True))
            for way in ("bare", "compare")
        }
        found.append({"hidden_dim": hidden_dim, "batch_size": batch_size, **speeds})
    return found


def ratio_table(record: dict[str, Any]) -> str:
    head = ["hidden_dim", "batch_size", "hand-written loop", "`mnist-amp compare`", "difference"]
    rows = [
        [
            *(str(found[key]) for key in ("hidden_dim", "batch_size")),
            *(f"{found[key]:.2f}" for key in ("bare", "compare")),
            f"{found['compare'] / found['bare'] - 1:+.0%}",
        ]
        for found in medians(record)
    ]
    rounds = len(record["runs"]) // len(rows) // len(BOTH)
    where = f"{record['device']}, torch {record['versions']['torch']}, {record['date']}"
    return (
        f"Speed of {HALF} (float32 = 1), measured in two ways:\n\n{markdown([head, *rows])}\n\n"
        f"Medians of {rounds} interleaved rounds on: {where}.\n`{record['command']}`\n"
    )


def measured_here() -> dict[str, Any]:
    """Return what `place` needs besides the fields that `keep` saves."""
    return {"bfloat16": cpu_multiplies(torch.bfloat16) if DEVICE == "cpu" else None}


def place(record: dict[str, Any]) -> str:
    """Name the machine of a record by what decides about bfloat16, and the date."""
    known = {True: ", with instructions for bfloat16", False: ", without instructions for bfloat16", None: ""}
    return f"{record['device']}{known[record.get('bfloat16')]}, torch {record['versions']['torch']}, {record['date']}"


def run(command: str, folder: Path, *options: str) -> Path:
    """Run a command, and return the folder of its report. A comparison that was stopped in this folder is resumed."""
    reports = folder / "lightning_logs" / command
    settings = [*options, f"--data.data_dir={folder / 'data'}"]
    if command == "compare" and reports.is_dir():
        settings = ["--resume=last"]  # it keeps its settings
    program = [sys.executable, "-m", "mnist_amp", command, *settings, f"--trainer.default_root_dir={folder}"]
    subprocess.run(program, check=True)
    return max(reports.glob("version_*"))


def keep_files(folder: Path, target: Path) -> None:
    """Keep the plots of a report and its results.json, without the paths of this machine."""
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.png"):
        shutil.copyfile(path, target / path.name)
    text = re.sub(r'"/[^"]*"', '""', (folder / "results.json").read_text(encoding="utf-8"))
    text = re.sub(r" --(trainer\.default_root_dir|data\.data_dir)=\S+?(?=[ \"])", "", text)
    (target / "results.json").write_text(text, encoding="utf-8")


def keep_gradients(folder: Path, results: Path) -> None:
    """Keep the section about gradients of a profile late in training."""
    late = results / f"profile-{MACHINE}" / "late"
    keep_files(folder, late)
    shutil.move(late / "gradients.png", late.parent / "gradients-late.png")
    text = gradients_text(ProfileResults.load(late / "results.json"))
    shutil.rmtree(late)
    (results / f"gradients-{MACHINE}.md").write_text(text, encoding="utf-8")


def gradients_text(found: ProfileResults) -> str:
    section = next(part for part in sections(profile_report.markdown(found)) if "gradient values" in part)
    chart = f"![{profile_report.GRADIENTS_TITLE}](results/profile-{MACHINE}/gradients-late.png)"
    return f"{body(section).strip()}\n\n{chart}\n{measured_on(found.device, found.versions, found.date, found.command)}"


def write_tables(results: Path, device: str = MACHINE) -> None:
    """Write the Markdown of the reports whose results.json are saved."""
    if (path := results / f"compare-{device}" / "results.json").is_file():
        found = Comparison.load(path)
        _, verdict, *others = sections(for_site(compare_report.report(found), f"results/compare-{device}"))
        on = measured_on(found.device, found.versions, found.date, found.command)
        (results / f"verdict-{device}.md").write_text(f"{body(verdict).strip()}\n{on}", encoding="utf-8")
        inference = [part for part in others if part.startswith("### Inference")]
        text = "\n".join([body(verdict), *(part for part in others if part not in inference)]).strip()
        (results / f"compare-{device}.md").write_text(f"{text}\n", encoding="utf-8")
        text = "\n".join(map(body, inference)).strip()
        (results / f"inference-{device}.md").write_text(f"{text}\n{on}", encoding="utf-8")
    if (path := results / f"profile-{device}" / "results.json").is_file():
        profiled = ProfileResults.load(path)
        report = for_site(profile_report.markdown(profiled), f"results/profile-{device}")
        _, times, work, layers, *others = sections(report)
        on = measured_on(profiled.device, profiled.versions, profiled.date, profiled.command)
        text = f"{body(times)}\n{work}\n{layers}".strip()
        (results / f"profile-{device}.md").write_text(f"{text}\n{on}", encoding="utf-8")
        text = "\n".join(others).strip()
        (results / f"operations-{device}.md").write_text(f"{text}\n", encoding="utf-8")


def measured_on(device: str, versions: dict[str, str], date: str, command: str) -> str:
    return f"\nOn: {device}, torch {versions['torch']}, {date[:10]}. `{command}`\n"


def for_site(report: str, folder: str) -> str:
    """Return a report as a page of the site takes it: with its charts, and with Markdown in collapsed tables."""
    report = re.sub(r"^(!\[.*\]\()", rf"\1{folder}/", report, flags=re.MULTILINE)
    return report.replace(f"{CHARTS_NOTE}\n\n", "").replace("<details>", '<details markdown="1">')


def sections(report: str) -> list[str]:
    """Return the sections of a report, with its headings a level deeper; the first one is empty."""
    return re.split(r"^(?=##)", re.sub(r"^#", "##", report, flags=re.MULTILINE), flags=re.MULTILINE)


def body(section: str) -> str:
    """Return a section without its heading."""
    return section.partition("\n\n")[2]


if __name__ == "__main__":
    main()
