"""Settings that are overridden on resume, as the table in docs/resume.md has them."""

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest

from mnist_amp.runs.epoch_position import Batches, convert_position
from tests.conftest import Refused, Run
from tests.runs.test_exact import SETTINGS, interrupted, last
from tests.runs.test_resume import flat

TRAINED = ("state_dict", "optimizer_states", "lr_schedulers", "MixedPrecision", "loops", "train_means")
NEUTRAL = [
    *("--model.steps_per_execution=4", "--checkpoint.every_n_train_steps=9", "--trainer.log_every_n_steps=5"),
    *("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"),
    *("--trainer.deterministic=true", "--trainer.callbacks=LearningRateMonitor"),
    *("--trainer.profiler=simple", "--trainer.max_time=00:01:00:00", "--trainer.enable_model_summary=true"),
]


@pytest.mark.parametrize("override", NEUTRAL)
def test_settings_that_change_no_result(run: Run, fitted: Run, override: str) -> None:
    fitted(*SETTINGS)
    interrupted(run, 28, *SETTINGS)
    callbacks = () if "callbacks" in override else ("--trainer.callbacks=null",)
    run("fit", "--ckpt_path=last", *callbacks, override)
    for key in TRAINED:
        assert flat(last(2).get(key)) == flat(last(0).get(key)), key


IMAGES = 3000
FEW = (
    *("--config=configs/smoke.yaml", "--trainer.limit_train_batches=1.0", f"--data.val_size={60_000 - IMAGES}"),
    *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.precision=32-true"),
)
SEEN = "--trainer.callbacks=tests.seen.Seen"


def seen_from(run: Run, *args: str) -> tuple[list[int], list[int]]:
    """Resume within the first epoch; return the images of the rest of it, and of the second epoch."""
    run("fit", "--ckpt_path=last", SEEN, *args)
    indices = [int(line) for line in Path("seen_0.txt").read_text().split()]
    return indices[:-IMAGES], indices[-IMAGES:]


@pytest.mark.parametrize("size", [32, 100, 4096])
@pytest.mark.parametrize("done", [1, 20, 46])
def test_another_batch_size_within_an_epoch(run: Run, size: int, done: int) -> None:
    """The rest of the epoch trains on the images that are left, each once. It has 47 batches of 64."""
    run("fit", *FEW, SEEN, f"--trainer.max_steps={done}")
    before = [int(line) for line in Path("seen_0.txt").read_text().split()]
    rest, following = seen_from(run, "--trainer.max_steps=-1", f"--data.batch_size={size}")
    assert sorted(before + rest) == sorted(following)
    assert len(set(following)) == IMAGES


def test_resumed_again_after_another_batch_size(run: Run) -> None:
    run("fit", *FEW, SEEN, "--trainer.max_steps=20")
    before = [int(line) for line in Path("seen_0.txt").read_text().split()]
    run("fit", "--ckpt_path=last", SEEN, "--trainer.max_steps=23", "--data.batch_size=100")
    between = [int(line) for line in Path("seen_0.txt").read_text().split()]
    assert last(1)["ClassificationDataModule"] == {"epoch": 0, "images_ahead": 80}
    rest, following = seen_from(run, "--trainer.max_steps=-1", "--data.batch_size=64")
    assert sorted(before + between + rest) == sorted(following)
    assert "ClassificationDataModule" not in last(2)


def checkpoint(batches: int, ahead: int = 0) -> dict[str, Any]:
    current = dict.fromkeys(("ready", "started", "processed", "completed"), batches)
    loop = {"epoch_loop.batch_progress": {"current": current, "is_last_batch": False}}
    return {"epoch": 3, "loops": {"fit_loop": loop}, "data": {"epoch": 3, "images_ahead": ahead}}


@pytest.mark.parametrize(
    ("size", "processes", "now"),
    [(64, *pair) for pair in itertools.product((1, 2, 3), [(64, 1), (64, 2), (64, 4), (32, 1), (100, 3), (7, 2)])],
)
@pytest.mark.parametrize("batches", [1, 9, 17, 100])
def test_positions(size: int, processes: int, now: tuple[int, int], batches: int) -> None:
    """The images that are done stay done, and the batches that are left are exactly those of the images left."""
    images = 100 * size * processes + 13
    there, after = checkpoint(batches), Batches(now[0], now[1], images)
    convert_position(there, "data", size, processes, after)
    counted = there["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
    done = counted * now[0] * now[1] + there["data"]["images_ahead"]
    assert done == batches * size * processes
    assert after.longest() - counted == after.count(done)


def test_a_limit_of_batches_leaves_one() -> None:
    there = checkpoint(15)
    convert_position(there, "data", 64, 1, Batches(16, 1, 10_000, limit=20))
    assert there["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"] == 19
    assert there["data"] == {"epoch": 3, "images_ahead": 15 * 64 - 19 * 16}


def test_the_end_of_an_epoch_is_kept() -> None:
    there = checkpoint(15)
    there["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = True
    convert_position(there, "data", 64, 1, Batches(16, 1, 10_000))
    assert there["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"] == 15


SMALL = (*FEW, "--data.val_size=59000")  # 16 batches of 64 in an epoch
NO_LIMIT = ("--ckpt_path=lightning_logs/version_0", "--trainer.max_steps=-1", "--trainer.callbacks=null")


@pytest.mark.parametrize("stop", ["--trainer.max_steps=5", "--checkpoint.every_n_train_steps=5"])
@pytest.mark.parametrize(
    ("override", "steps"),
    [
        ("--data.batch_size=32", 5 + 22),
        ("--data.batch_size=100", 5 + 7),
        ("--data.batch_size=700", 5 + 1),
        ("--data.batch_size=1000", 5 + 1),  # batch 0 of the Trainer follows
        # 11 batches are left: one, because the sixth ends a pair, and then five pairs
        ("--trainer.accumulate_grad_batches=2", 5 + 1 + 5),
        ("--trainer.limit_train_batches=16", 5 + 11),
    ],
)
def test_means_and_log_rows_of_other_batches(run: Run, stop: str, override: str, steps: int) -> None:
    """The means of the epoch have all its images. Each step has one log row."""
    if "every" in stop:
        interrupted(run, 7, *SMALL, stop)
    else:
        run("fit", *SMALL, stop)
    run("fit", *NO_LIMIT, "--trainer.max_epochs=1", override)
    assert last(1)["global_step"] == steps
    assert last(1)["train_means"][..., 2].sum() == 1000
    assert logged_steps(1) == list(range(steps))
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert last(2)["train_means"][..., 2].sum() == 1000


def logged_steps(version: int) -> list[int]:
    with Path(f"lightning_logs/version_{version}/metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train_loss_step"]]


@pytest.mark.parametrize("override", ["--trainer.limit_train_batches=4", "--data.val_size=59900"])
def test_an_epoch_of_fewer_batches_than_are_done_ends_after_one_more(run: Run, override: str) -> None:
    run("fit", *SMALL, "--trainer.max_steps=5")
    run("fit", *NO_LIMIT, override, "--trainer.max_epochs=1")
    history = last(1)["callbacks"]["RunCheckpoint"]["history"]
    assert [(row["step"], "val_loss" in row) for row in history] == [(6, True)]


def test_a_schedule_by_steps_counts_the_steps_of_the_new_size(run: Run, refused: Refused) -> None:
    """5 steps are done; 22 of 32 images and then 32 follow, so two epochs take 59 steps."""
    schedule = ("--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.01", "--model.lr_scheduler_interval=step")
    run("fit", *SMALL, *schedule, "--lr_scheduler.total_steps=32", "--trainer.max_steps=5")
    assert refused("fit", *NO_LIMIT, "--data.batch_size=32", "--lr_scheduler.total_steps=58").endswith(
        "error: the schedule OneCycleLR ends after 58 optimizer steps, but the run takes 59 optimizer steps. Give the "
        "schedule as many steps (OneCycleLR: total_steps), or train for less.\n"
    )
    run("fit", *NO_LIMIT, "--data.batch_size=32", "--lr_scheduler.total_steps=59")
    assert last(1)["global_step"] == last(1)["lr_schedulers"][0]["last_epoch"] == 59


def test_a_schedule_of_the_accumulation_resumes_exactly_within_an_epoch(run: Run) -> None:
    """Lightning's callback sets the number at the start of an epoch, which the resumed run does not see."""
    scheduling = ("--trainer.callbacks=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 3}")
    settings = (*SMALL, *scheduling, "--trainer.max_epochs=3")
    run("fit", *settings)
    run("fit", *settings, "--trainer.max_steps=18")
    assert "changed" not in run("fit", "--ckpt_path=last", "--trainer.max_steps=-1")
    assert last(0)["global_step"] == 16 + 6 + 6
    for key in TRAINED:
        assert flat(last(2).get(key)) == flat(last(0).get(key)), key


SCHEDULED = '--trainer.callbacks=[{"class_path":"GradientAccumulationScheduler","init_args":{"scheduling":{"1":3}}}]'


@pytest.mark.parametrize(
    ("override", "steps"),
    [
        # 11 batches are left: one, because the sixth ends a pair, and then five pairs
        ("--trainer.accumulate_grad_batches=2", 5 + 1 + 5 + 8),
        (SCHEDULED, 5 + 11 + 6),
    ],
)
def test_a_schedule_by_steps_counts_the_steps_of_the_accumulation(
    run: Run, refused: Refused, override: str, steps: int
) -> None:
    """5 of 16 batches are done."""
    schedule = ("--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.01", "--model.lr_scheduler_interval=step")
    run("fit", *SMALL, *schedule, "--lr_scheduler.total_steps=40", "--trainer.max_steps=5")
    again = ("--ckpt_path=lightning_logs/version_0", "--trainer.max_steps=-1", override)
    message = f"the schedule OneCycleLR ends after {steps - 1} optimizer steps, but the run takes {steps} "
    assert message in refused("fit", *again, f"--lr_scheduler.total_steps={steps - 1}")
    run("fit", *again, f"--lr_scheduler.total_steps={steps}")
    assert last(1)["global_step"] == last(1)["lr_schedulers"][0]["last_epoch"] == steps
