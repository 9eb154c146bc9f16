"""Random settings, config files, checkpoints and image files end in a result or one message, never a traceback."""

import contextlib
import copy
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnist_amp.__main__ import main
from mnist_amp.data import mnist
from mnist_amp.errors import RequestError
from mnist_amp.runs import checkpoint_files
from tests.conftest import WHOLE, Run

pytestmark = pytest.mark.drawn  # the plots are drawn, with any numbers that a checkpoint holds

OPTIONS = (
    *("data.batch_size", "data.val_size", "data.seed", "network.hidden_dim", "model.lr_scheduler_interval"),
    *("optimizer", "optimizer.lr", "optimizer.betas", "lr_scheduler", "seed_everything", "ckpt_path", "config"),
    *("checkpoint.every_n_train_steps", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time"),
    *("trainer.precision", "trainer.accelerator", "trainer.callbacks", "trainer.logger", "trainer.plugins"),
    *("trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.val_check_interval", "trainer.profiler"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.gradient_clip_algorithm"),
    *("trainer.check_val_every_n_epoch", "trainer.log_every_n_steps", "trainer.deterministic", "trainer.benchmark"),
    *("trainer.default_root_dir", "trainer", "data", "model", "nothing", "data.nothing"),
)
# these start no other process, and do not fill the memory or the folder
HARMLESS = [name for name in OPTIONS if name not in ("ckpt_path", "config", "trainer.callbacks", "trainer.plugins")]
SCALARS = st.none() | st.booleans() | st.integers(-(10**4), 10**4) | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


def answer(*args: str) -> tuple[Any, str]:
    """Run the command; return its exit status and stderr."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(list(args))
        except SystemExit as stop:
            return stop.code or 0, stderr.getvalue()
    return 0, stderr.getvalue()


def assert_answered(status: Any, stderr: str) -> None:
    assert status in (0, 2), stderr
    assert "Traceback" not in stderr
    if status:
        assert stderr.count("mnist-amp: error: ") == 1
        assert len(stderr.strip()) > len("mnist-amp: error: ")


@pytest.fixture(autouse=True)
def elsewhere(run: Run) -> None:
    """Run each test in a new directory, with MNIST prepared."""


def nested(name: str, value: Any) -> Any:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


@settings(max_examples=50)
@given(name=st.sampled_from(OPTIONS), value=VALUES, in_file=st.booleans())
def test_settings(name: str, value: Any, in_file: bool) -> None:
    if in_file:
        Path("a.yaml").write_text(yaml.safe_dump(nested(name, value)), encoding="utf-8")
        args = ["--config=a.yaml"]
    else:
        args = [f"--{name}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...').strip()}"]
    assert_answered(*answer("fit", *args, "--print_config"))


@settings(max_examples=20)
@given(name=st.sampled_from(HARMLESS), value=SCALARS)
def test_settings_as_far_as_training(name: str, value: Any) -> None:
    Path("a.yaml").write_text(yaml.safe_dump(nested(name, value)), encoding="utf-8")
    smoke = ("--config=configs/smoke.yaml", "--config=a.yaml", "--trainer.fast_dev_run=1")
    assert_answered(*answer("fit", *smoke))
    assert list(Path().iterdir()) == [Path("a.yaml")]


@settings(max_examples=30)
@given(text=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_config_files(text: bytes) -> None:
    Path("a.yaml").write_bytes(text)
    assert_answered(*answer("fit", "--config=a.yaml", "--print_config"))


@st.composite
def damages(draw: st.DrawFn) -> Any:
    """Draw a function that damages bytes: it cuts, overwrites or replaces them."""
    if draw(st.booleans()):
        cut = draw(st.floats(0, 0.999))
        return lambda data: data[: int(cut * len(data))]
    if draw(st.integers(0, 3)) == 0:
        other = draw(st.binary(max_size=200))
        return lambda data: other
    edits = draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=20))

    def overwrite(data: bytes) -> bytes:
        found = bytearray(data)
        for place, change in edits:
            found[int(place * len(data))] ^= change
        return bytes(found)

    return overwrite


@settings(max_examples=150)
@given(damage=damages())
def test_checkpoint_bytes(damage: Any) -> None:
    torch.save({**WHOLE, "state_dict": {"weight": torch.ones(100)}}, "a.ckpt")
    whole = Path("a.ckpt").read_bytes()
    Path("a.ckpt").write_bytes(damage(whole))
    try:
        found = checkpoint_files.read(Path("a.ckpt"))
    except RequestError:
        return
    # the damage is where no checksum is, such as a time stamp
    assert {key: found[key] for key in WHOLE} == WHOLE
    assert torch.equal(found["state_dict"]["weight"], torch.ones(100))


def leaves(nest: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all parts of nested lists and dicts."""
    items = nest.items() if isinstance(nest, dict) else enumerate(nest) if isinstance(nest, list) else ()
    return [(*path, key) for key, _ in items] + [way for key, part in items for way in leaves(part, (*path, key))]


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 3, 2**70, 0.5, float("nan"), "", "junk", "a.b", [], [[]], {}, {3: 4}, {"a": None}]
)
TENSORS = st.sampled_from([torch.zeros(()), torch.zeros(3), torch.zeros(1, 2, 3), torch.zeros(2, 2).to_sparse()])


@settings(max_examples=30)
@given(data=st.data(), value=JUNK | TENSORS, subcommand=st.sampled_from(["fit", "fit", "validate", "test"]))
def test_checkpoint_contents(checkpoint: dict[str, Any], data: st.DataObject, value: Any, subcommand: str) -> None:
    content = copy.deepcopy(checkpoint)
    first = data.draw(st.sampled_from(list(content)))  # otherwise most would be in the progress, which has many parts
    *way, last = data.draw(st.sampled_from([(first,), *leaves(content[first], (first,))]))
    nest: Any = content
    for key in way:
        nest = nest[key]
    nest[last] = value
    torch.save(content, "a.ckpt")
    limits = ("--trainer.limit_test_batches=2",) if subcommand == "test" else ("--trainer.limit_val_batches=2",)
    more = ("--trainer.max_steps=9", "--trainer.max_epochs=2", "--trainer.logger=false") if subcommand == "fit" else ()
    assert_answered(*answer(subcommand, "--ckpt_path=a.ckpt", *limits, *more))


@settings(max_examples=12)
@given(damage=damages(), subcommand=st.sampled_from(["fit", "test", "predict"]))
def test_a_runs_checkpoint(damage: Any, subcommand: str) -> None:
    if not Path("lightning_logs").exists():
        assert answer("fit", "--config=configs/smoke.yaml") == (0, "")
        shutil.move("lightning_logs/version_0/checkpoints/last.ckpt", "whole.ckpt")
        shutil.rmtree("lightning_logs")
        Path("lightning_logs").mkdir()
    Path("a.ckpt").write_bytes(damage(Path("whole.ckpt").read_bytes()))
    status, stderr = answer(subcommand, "--ckpt_path=a.ckpt", "--trainer.limit_test_batches=2")
    assert_answered(status, stderr)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Return a copy of MNIST for tests to damage."""
    folder = tmp_path_factory.mktemp("raw")
    shutil.copytree(data_dir, folder, dirs_exist_ok=True)
    return folder


@settings(max_examples=25)
@given(damage=damages(), name=st.sampled_from(["train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz"]))
def test_image_files(damage: Any, name: str, raw: Path) -> None:
    path = raw / "MNIST" / "raw" / name
    whole = path.read_bytes()
    unpacked = path.with_suffix("")
    if name.endswith(".gz"):
        kept = unpacked.read_bytes()
        unpacked.unlink()  # otherwise the archive is not read
    try:
        damaged = damage(whole)
        assume(damaged != whole)
        path.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"is not MNIST's file: its MD5 is"):
            mnist.prepare(raw)
        assert path.read_bytes() == damaged
    finally:
        path.write_bytes(whole)
        if name.endswith(".gz"):
            unpacked.write_bytes(kept)
