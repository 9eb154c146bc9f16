"""Settings that are overridden on resume, as the table in docs/resume.md has them."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from mnist_amp.runs.epoch_position import Batches, convert_position
from tests.conftest import Run
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
    assert last(1)["MNISTDataModule"] == {"epoch": 0, "images_ahead": 80}
    rest, following = seen_from(run, "--trainer.max_steps=-1", "--data.batch_size=64")
    assert sorted(before + between + rest) == sorted(following)
    assert "MNISTDataModule" not in last(2)


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
