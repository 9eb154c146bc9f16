"""Resume runs with other settings, drawn at random, and compare each with a loop of plain PyTorch that does the same.

    python benchmarks/resume_fuzz.py --pairs 200

A pair is a run that is cut off after a random optimizer step, and a fit that resumes from its last checkpoint with up
to four other settings: optimizer, schedule, callbacks, precision, clipping, accumulation, size of a batch, length,
steps per execution, log rows. The loop (`plain_loop`) trains to the same step with the settings before, and then to the
end with those after; its learning rates come from a schedule that had the settings after from its first step. Weights,
averaged weights, the state of the optimizer, the means of the epochs and the log rows must be equal to the last bit. A
pair that can't be continued must be refused, with one line before anything is made.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mnist_amp.__main__ import main as mnist_amp
from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.loader import Batch
from mnist_amp.networks import SimpleNN
from mnist_amp.runs import checkpoint_contents, checkpoint_files
from mnist_amp.runs.checkpoint_contents import Progress
from plain_loop import ACCUMULATION, CHOICES, IMAGES, STOPPING, PlainLoop, Settings

EVERY = 2  # optimizer steps between two checkpoints
SEED = 42
FIXED = [
    *("--config=configs/smoke.yaml", "--trainer.limit_train_batches=1.0", f"--data.val_size={60_000 - IMAGES}"),
    *("--trainer.accelerator=cpu", "--trainer.limit_val_batches=1", f"--checkpoint.every_n_train_steps={EVERY}"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false", f"--seed_everything={SEED}"),
]


class Cut(Callback):
    """Raises before the optimizer step after `step`."""

    once_per_execution = True

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= self.step:
            raise InterruptedError


class Ran(NamedTuple):
    """How a command ended: its exit status, and what it printed on stderr."""

    status: int
    error: str


def fit(settings: Settings, *args: str) -> Ran:
    """Run `mnist-amp fit` in this process."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            mnist_amp(["fit", *FIXED, *arguments(settings), *args])
        except SystemExit as ended:
            return Ran(int(ended.code or 0), error.getvalue())
    return Ran(0, error.getvalue())


def arguments(settings: Settings) -> list[str]:
    """Return the settings as arguments of `mnist-amp fit`."""
    name, init_args = settings.optimizer
    schedule, rates, interval = settings.schedule or (None, {}, "epoch")
    given = {
        "optimizer": {"class_path": f"torch.optim.{name}", "init_args": init_args},
        "lr_scheduler": schedule and {"class_path": f"torch.optim.lr_scheduler.{schedule}", "init_args": rates},
        "trainer.callbacks": [callback(*settings.callback)] if settings.callback else [],
        "trainer.gradient_clip_val": settings.clip,
        "trainer.accumulate_grad_batches": settings.accumulate,
        "trainer.log_every_n_steps": settings.log_every_n_steps,
        "data.batch_size": settings.batch_size,
        "trainer.max_epochs": settings.max_epochs,
        "model.steps_per_execution": settings.steps_per_execution,
    }
    fp16 = settings.precision == "fp16-cpu"
    return [
        "--config=configs/fp16-cpu.yaml" if fp16 else f"--trainer.precision={settings.precision}",
        f"--model.lr_scheduler_interval={interval}",
        *(f"--{key}={json.dumps(value)}" for key, value in given.items()),
    ]


def callback(class_path: str, init_args: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def problem(settings: Settings, done: Progress, images: int) -> str | None:
    """Return why a fit with these settings must be refused, whatever was before; None if it must not.

    Args:
        settings: of the fit.
        done: what is trained already.
        images: those of the current epoch that are done.
    """
    scheduled = settings.of(ACCUMULATION) is not None
    if settings.steps_per_execution > 1 and (settings.accumulate > 1 or scheduled):
        return "several steps per execution, and accumulation"
    if settings.accumulate > 1 and scheduled:
        return "accumulation, and a schedule of it"
    end = settings.schedule[1].get("total_steps") if settings.schedule else None
    is_short = end is not None and done.step + settings.steps_until_end(done.epochs, images) > end
    return "the schedule ends before the run" if is_short else None


def problem_on_resume(before: Settings, after: Settings, loop: PlainLoop, done: Progress) -> str | None:
    """Return why the run of a loop must not be resumed with the settings after; None if it must."""
    if before.optimizer[0] != after.optimizer[0]:
        return "another optimizer"
    if after.max_epochs <= done.epochs:
        return "nothing is left to train"
    if (general := problem(after, done, loop.done)) is not None:
        return general
    if loop.swa is not None:
        fixed = ("callback", "optimizer", "schedule")
        changed = any(getattr(before, name) != getattr(after, name) for name in fixed)
        return "a stochastic average has begun" if changed else None
    if after.averages_from() < done.epochs:
        return "a stochastic average would begin late"
    if after.optimizer[1].get("amsgrad") and not before.optimizer[1].get("amsgrad"):
        return "the optimizer needs more state"
    stopping = after.of(STOPPING)
    return "stopped early" if loop.ended and stopping and stopping["patience"] < done.epochs else None


def run_pair(source: random.Random, epochs: list[Batch]) -> str:
    """Run a pair in the current folder.

    Args:
        source: draws the pair.
        epochs: the images of each epoch.

    Returns:
        How it ended: `exact continuation`, `equal to its yardstick`, or `refused` with the reason.

    Raises:
        AssertionError: it did not end as it must.
    """
    before = Settings.drawn(source)
    while problem(before, Progress(0, 0), 0) is not None:
        before = Settings.drawn(source)
    after, cut = before.changed(source), source.randint(EVERY, max(before.steps_until_end(), EVERY))
    fit(before, f"--trainer.callbacks+={json.dumps([callback('resume_fuzz.Cut', {'step': cut})])}")
    done = checkpoint_contents.progress(read_last(0))
    name = f"{before}\n-> {after}\ncut at step {cut}, resumed from {done}"
    torch.manual_seed(SEED)
    loop = PlainLoop(before, SimpleNN(128))
    loop.run(epochs, until=done.step)
    files = sorted(Path().rglob("*"))
    resumed = fit(after, "--ckpt_path=lightning_logs/version_0")
    if (refusal := problem_on_resume(before, after, loop, done)) is not None:
        errors = [line for line in resumed.error.splitlines() if line.startswith("mnist-amp: error: ")]
        assert (resumed.status, len(errors)) == (2, 1), f"not refused ({refusal}): {name}\n{resumed.error}"
        assert sorted(Path().rglob("*")) == files, name
        return f"refused: {refusal}"
    assert resumed.status == 0, f"{name}\n{resumed.error}"
    if before != after:
        loop.change(after)
    loop.ended = False
    loop.run(epochs)
    assert_equal(read_last(1), loop, name)
    assert logged_losses(1) == [*loop.logged.items()], f"log rows: {name}"
    return "exact continuation" if before == after else "equal to its yardstick"


def read_last(version: int) -> dict[str, Any]:
    return checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/last.ckpt"))


def logged_losses(version: int) -> list[tuple[int, float]]:
    """Return the loss of each log row that has the loss of a step."""
    with Path(f"lightning_logs/version_{version}/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train_loss_step"]]
    return [(int(row["step"]), float(row["train_loss_step"])) for row in rows]


def assert_equal(found: dict[str, Any], loop: PlainLoop, name: str) -> None:
    """Assert that a checkpoint holds what the loop has, to the last bit."""
    assert checkpoint_contents.progress(found) == (loop.epoch, loop.steps), name
    averaged = "current_model_state" in found
    assert averaged == (loop.average is not None), name
    assert_same(found["current_model_state" if averaged else "state_dict"], named(loop.model), f"weights: {name}")
    if loop.average is not None:
        assert_same(found["state_dict"], named(loop.average.module), f"average: {name}")
    state = loop.optimizer.state_dict()["state"]
    for key, values in found["optimizer_states"][0]["state"].items():
        assert_same(values, state[key], f"state of the optimizer: {name}")
    assert found["train_means"][0].tolist() == loop.means, f"means of the epoch: {name}"
    history = [(row.epoch, row.step, row.train_loss) for row in checkpoint_contents.history(found)]
    assert history == loop.history, f"history: {history}, not {loop.history}: {name}"


def named(model: torch.nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in model.state_dict().items()}


def assert_same(found: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    assert found.keys() == expected.keys(), name
    for key, value in expected.items():
        same = torch.equal(found[key], value) if isinstance(value, Tensor) else found[key] == value
        assert same, f"{key} of {name}"


def images_of_epochs() -> list[Batch]:
    """Return the images of each epoch, in their order."""
    data = ClassificationDataModule(batch_size=IMAGES, val_size=60_000 - IMAGES, seed=SEED)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    data.trainer = Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)
    data.prepare_data()
    data.setup("fit")
    return [_images_of(data, epoch) for epoch in range(max(CHOICES["max_epochs"]))]


def _images_of(data: ClassificationDataModule, epoch: int) -> Batch:
    loader = data.train_dataloader()
    loader.position = lambda: (epoch, 0)
    return next(iter(loader))


@contextlib.contextmanager
def new_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first pair; the others count up from it")
    args = parser.parse_args()
    epochs, counts = images_of_epochs(), Counter[str]()
    for seed in range(args.seed, args.seed + args.pairs):
        with new_folder():
            try:
                counts[run_pair(random.Random(seed), epochs)] += 1
            except AssertionError:
                counts["wrong"] += 1
                print(f"seed {seed}: {traceback.format_exc(limit=0)}", flush=True)
    for outcome, count in sorted(counts.items()):
        print(f"{count:5} {outcome}")
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
