"""The commands as functions: their results, their errors, and the state of the process after them."""

import gc
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.strategies.launchers import subprocess_script
from PIL import Image
from torch import Tensor, nn

from mnist_amp import commands, errors, networks, signals
from mnist_amp.commands import compare, export, fit, predict, profile, validate
from mnist_amp.errors import RequestError, RunError
from mnist_amp.reporting.result import Result
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.config_text import parse_yaml, read_yaml
from tests.conftest import Run, files

SMOKE = ("--config", "smoke.yaml")
RUN = Path("lightning_logs/version_0")
SEVEN = Path(__file__).parents[1] / "docs" / "digits" / "seven.png"


@pytest.fixture(autouse=True)
def in_new_directory(run: Run) -> None:
    """Call the functions where `run` runs the commands."""


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_fit_returns_its_folder_and_the_metrics_of_its_best_epoch() -> None:
    result = fit(*SMOKE, "--trainer.max_epochs", 2)
    history = checkpoint_files.read(RUN / "checkpoints/last.ckpt")["callbacks"]["RunCheckpoint"]["history"]
    assert len(history) == 2
    assert result == Result(RUN, max(history, key=lambda row: float(row["val_accuracy"])))
    assert repr(result) == f"Result(folder={RUN!r})"
    assert {"epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"} == result.metrics.keys()


def test_the_best_epoch_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fit(*SMOKE, "--trainer.max_epochs", 2, "--optimizer", "SGD", "--optimizer.lr", 1e-9)
    assert result.metrics["epoch"] == 0  # the second is as accurate, and not better


def test_without_validation_and_without_checkpoints() -> None:
    last = fit(*SMOKE, "--data.val_size", 0, "--trainer.max_epochs", 2)
    assert (last.folder, last.metrics["epoch"], last.metrics.keys() & {"val_loss"}) == (RUN, 1, set())
    unsaved = fit(*SMOKE, "--trainer.enable_checkpointing", False)
    assert unsaved.folder == RUN.with_name("version_1")
    assert {"train_loss", "val_loss", "val_accuracy"} <= unsaved.metrics.keys()
    assert fit(*SMOKE, "--trainer.fast_dev_run", True).folder is None


def test_evaluations_return_what_they_write() -> None:
    fit(*SMOKE)
    result = commands.test("--trainer.limit_test_batches", 3)
    assert result.folder == RUN / "test_best_192-images"
    assert result.metrics == json.loads((RUN / "test_best_192-images/metrics.json").read_text())
    assert result.metrics["images"] == 192
    assert validate().folder == RUN / "validate_best"


def test_predictions_have_numbers() -> None:
    fit(*SMOKE)
    Path("none.png").write_bytes(b"")
    Image.new("L", (28, 28)).save("black.png")
    result = predict("--images", SEVEN, "black.png")
    assert result.folder == Path("lightning_logs/predict/version_0")
    rows = result.metrics["predictions"]
    assert [row["file"] for row in rows] == [str(SEVEN), "black.png"]
    assert rows[0]["guess"] in list("0123456789")
    assert rows[0]["probability"] == max(rows[0][f"p{index}"] for index in range(10))
    assert predict("--trainer.limit_predict_batches", 1).metrics["predictions"][0].keys() >= {"index", "class", "p9"}
    table = Path("lightning_logs/predict/version_1/predictions.csv")
    with pytest.raises(
        RunError, match=rf"^1 image could not be read; none.png: .* The others were scored, see {table}\.$"
    ):
        predict("--images", "black.png", "none.png")
    assert [row["file"] for row in Result.read(table.parent).metrics["predictions"]] == ["black.png", "none.png"]


def test_export_compare_and_profile_return_their_results() -> None:
    fit(*SMOKE)
    results = {
        "export": export("--formats", ["pth"]),
        "profile": profile("--steps", 3, "--warmup", 1),
        "compare": compare(
            *("--precisions", ["32-true", "bf16-mixed"], "--axes", {"data.batch_size": [64]}, "--seconds", 0.01),
            *("--rounds", 1, "--seeds", 0, "--trainer.limit_train_batches", 4),
        ),
    }
    for name, result in results.items():
        folder = Path("lightning_logs") / name / "version_0"
        assert result == Result(folder, json.loads((folder / "results.json").read_text()))
    assert results["compare"].metrics["precisions"] == ["32-true", "bf16-mixed"]


def test_a_result_shows_its_plots(tmp_path: Path) -> None:
    assert Result(None, {})._repr_html_() is None
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(name.encode())
    result = Result(tmp_path, {})
    assert result.plots == [tmp_path / "a.png", tmp_path / "b.png"]
    style = 'style="max-width: 100%"'
    assert result._repr_html_() == "".join(
        f'<img src="data:image/png;base64,{text}" {style}>' for text in ("YS5wbmc=", "Yi5wbmc=")
    )


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--help") == Result(None, {})
    assert capsys.readouterr().out.startswith("usage: mnist-amp fit [options]\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(("a b", "a b"), (2, "2"), (-1, "-1"), (0.5, "0.5"), (True, "true"), (None, "null")),
        *((Path("a") / "b.png", "a/b.png"), (["32-true", 1], "[32-true, 1]"), ({"a": None}, "{a: null}")),
        *((np.int64(3), "3"), (np.float32(0.5), "0.5"), (torch.tensor(4), "4"), ([Path("a")], "[a]")),
        *((np.array([1, 2]), "[1, 2]"), (np.True_, "true"), (np.float64(0.5), "0.5"), ((1, (2,)), "[1, [2]]")),
        *((float("inf"), ".inf"), (-float("inf"), "-.inf"), (float("nan"), ".nan"), ([float("inf")], "[.inf]")),
        *((1e-9, "1.0e-09"), ([1e-9], "[1.0e-09]"), (["\U0001f600", "1", "on"], "[\U0001f600, '1', 'on']")),
        *((signal.SIGINT, "2"), ({"x": (1,) * 60}, "{x: [" + ", ".join("1" * 60) + "]}")),
        *((timedelta(days=1, minutes=65, seconds=5), "01:01:05:05"), ([timedelta(hours=2)], "['00:02:00:00']")),
        *((nn.Linear, "torch.nn.Linear"), ([torch.relu], "[torch.relu]")),
        (Image.new, "PIL.Image.new"),
    ],
)
def test_values_of_python_are_arguments(value: Any, text: str) -> None:
    assert commands._text(value) == text
    if not isinstance(value, str | Path | type | timedelta | FunctionType):
        assert repr(read_yaml(text)) == repr(commands._plain(value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, f"an argument can't be of type {kind}. Give text, a number, True, False, None, a path, a timedelta, "
          "a class or a function, or a list or a dictionary of these. The parameters of a class are options of their "
          "own, such as --network.width.") for value, kind in (
              (nn.ReLU(), "ReLU"), ([{"a": {1}}], "set"), (b"a", "bytes"), (torch.float16, "dtype"), (1j, "complex"))),
        (timedelta(seconds=1.5), "the time 0:00:01.500000 has a fraction of a second; give whole seconds."),
        (
            lambda: None,
            "<lambda> can't be imported by its name. Define it at the top level of a module or in a cell, and not "
            "within a function.",
        ),
    ],
)  # fmt: skip
def test_other_values_are_refused(value: Any, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        fit("--network", value)
    assert str(raised.value) == message
    assert not Path("lightning_logs").exists()


def test_classes_and_times_reach_the_run() -> None:
    optimizer = ("--optimizer", torch.optim.SGD, "--optimizer.lr", 0.1)
    fit(
        *SMOKE, *optimizer, "--network", networks.CNN, "--network.width", 4, "--trainer.max_time", timedelta(minutes=90)
    )
    config = parse_yaml((RUN / "config.yaml").read_text(), "")
    assert config["network"] == {"class_path": "mnist_amp.networks.CNN", "init_args": {"width": 4, "dropout": 0.0}}
    assert config["optimizer"]["class_path"] == "torch.optim.SGD"
    assert config["trainer"]["max_time"] == "00:01:30:00"
    assert commands.test("--trainer.limit_test_batches", 1).metrics["images"] == 64
    with pytest.raises(RequestError, match=r"^trainer\.gradient_clip_val is inf; it must be at least 0\. "):
        fit("--trainer.gradient_clip_val", float("inf"))


def test_values_reach_the_run() -> None:
    fit(*SMOKE, "--trainer.max_epochs", -1, "--trainer.max_steps", np.int64(3), "--trainer.callbacks", None)
    assert checkpoint_files.read(RUN / "checkpoints/last.ckpt")["global_step"] == 3


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kind", "message"),
    [
        (
            ("--trainer.max_epoch", 3),
            RequestError,
            "there is no option trainer.max_epoch (did you mean trainer.max_epochs?). See mnist-amp fit --help.",
        ),
        (
            ("--config", "none.yaml"),
            RequestError,
            "there is no config file none.yaml. Those of the package are bf16, cosine, csv, cuda, ddp-cpu, fast, "
            "fp16-cpu, fp16-cuda, fp32, guide, mlflow, overfit, profile, smoke, wandb (.yaml).",
        ),
        (
            ("--trainer.accelerator", "gpu"),
            RequestError,
            "trainer.accelerator asks for a GPU, but no GPU can be used here. Leave it at auto, or give cpu.",
        ),
        (
            (*SMOKE, "--trainer.callbacks", "tests.interrupt.Interrupt", "--trainer.callbacks.step", 2),
            RunError,
            "CutOffError: \nSet MNIST_AMP_DEBUG=1 to see where it came from.",
        ),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of them asks for a GPU")
def test_an_error_has_the_message_of_the_command(
    args: tuple[Any, ...], kind: type[Exception], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind) as raised:
        fit(*args)
    assert str(raised.value) == message
    assert "error" not in capsys.readouterr().err  # it is raised, and not printed as well
    with pytest.raises(SystemExit):
        run("fit", *map(str, args))
    assert capsys.readouterr().err == f"mnist-amp: error: {message}\n"


def test_the_traceback_of_a_wrong_request_is_short() -> None:
    with pytest.raises(RequestError) as raised:
        fit("--data.batch_size", 0)
    assert [entry.name for entry in raised.traceback][1:] == ["fit", "_call"]
    assert (raised.value.__cause__, raised.value.__suppress_context__) == (None, True)


def test_debug_keeps_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_AMP_DEBUG", "1")
    with pytest.raises(RequestError) as raised:
        fit("--data.batch_size", 0)
    assert len(raised.traceback) > 5


# --- the state of the process -----------------------------------------------------------------------------------------


def state() -> dict[str, Any]:
    """Return what a command may change."""
    names = ("lightning.pytorch.utilities.rank_zero", "matplotlib", "torch._dynamo")
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "signals": [signal.getsignal(each) for each in signals.HANDLED],
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in names],
        "hook": threading.excepthook,
        "garbage": (gc.isenabled(), gc.get_freeze_count()),
        "prints": errors.prints,
        "products": products(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "observer": subprocess_script._launch_process_observer,  # type: ignore[attr-defined]
        "threads": torch.get_num_threads(),
    }


def products() -> list[str]:
    """Return the precisions of products of matrices and of convolutions."""
    backends: Any = torch.backends
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return [kind.fp32_precision for kind in kinds]


@pytest.mark.parametrize("chosen", ["highest", "medium"])
def test_precisions_of_torchs_new_interface_stay(chosen: str) -> None:
    """Torch refuses to read those of its old interface then."""
    backends: Any = torch.backends
    initial = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    try:
        backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = "tf32", "ieee"
        before = products()
        fit(*SMOKE, "--matmul_precision", chosen)
        assert products() == before
    finally:
        backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = initial


def test_the_old_interface_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # the default, which another test may have changed
    torch.set_float32_matmul_precision("high")
    try:
        fit(*SMOKE, "--matmul_precision", "highest")
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    fit(*SMOKE, "--trainer.max_steps", 1)  # the imports, which are those of any program
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(errors, "prints", True)
    before = state()
    fit(*SMOKE, "--matmul_precision", "medium", "--trainer.deterministic", True, "--trainer.benchmark", False)
    commands.test()
    predict("--images", SEVEN)
    export("--formats", ["pth"])
    with pytest.raises(RequestError):
        fit(*SMOKE, "--seed_everything", 7, "--network.hidden_dim", "wide")
    with pytest.raises(RunError):
        fit(*SMOKE, "--trainer.callbacks", "tests.interrupt.Interrupt", "--trainer.callbacks.step", 2)
    assert state() == before


@pytest.mark.parametrize("fails", [False, True])
def test_the_random_numbers_continue(fails: bool) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = [draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    found = [draw()]
    if fails:
        with pytest.raises(RunError):
            fit(*SMOKE, "--trainer.callbacks", "tests.interrupt.Interrupt", "--trainer.callbacks.step", 2)
    else:
        fit(*SMOKE)
    assert [*found, draw()] == wanted


def test_fits_repeat_with_a_seed_and_differ_without() -> None:
    runs = [fit(*SMOKE, "--seed_everything", seed).metrics["train_loss"] for seed in (5, 5, False, False, True, True)]
    assert runs[0] == runs[1]
    assert len(set(runs)) == 5


def test_the_seed_of_the_program_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seed_everything(7, workers=True)
    before = dict(os.environ)
    draws = []
    for seed in (False, False, True, True):
        run = fit(*SMOKE, "--seed_everything", seed)
        draws.append((run.metrics["train_loss"], random.random() if seed is False else None))
    assert len(set(draws)) == 4
    assert dict(os.environ) == before
    seeds = [parse_yaml((RUN.with_name(f"version_{number}") / "config.yaml").read_text(), "")["seed_everything"]
             for number in range(4)]  # fmt: skip
    assert (seeds[:2], 7 in seeds) == ([False, False], False)
    settings = checkpoint_files.read(RUN / "checkpoints/last.ckpt")["datamodule_hyper_parameters"]
    assert settings["seed"] == 0  # as the first lines of the fit tell


def test_a_fit_leaves_no_trainer_behind() -> None:
    def trainers() -> list[Trainer]:
        return [each for each in gc.get_objects() if type(each) is Trainer]

    before = trainers()
    fit(*SMOKE)
    assert trainers() == before


NETWORK = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, {width}), nn.ReLU(), nn.Linear({width}, 10))
"""


def test_a_changed_file_of_the_current_folder_is_imported_again() -> None:
    for width in (4, 16):
        Path("changing_net.py").write_text(NETWORK.format(width=width))
        fit(*SMOKE, "--network", "changing_net.Net")
    weights = checkpoint_files.read(RUN.with_name("version_1") / "checkpoints/last.ckpt")["state_dict"]
    assert weights["model.1.weight"].shape == (16, 784)
    assert "changing_net" not in sys.modules


def test_a_changed_file_of_a_folder_is_imported_again() -> None:
    """The folder has no `__init__.py`."""
    Path("changing_nets").mkdir()
    for width in (4, 16):
        Path("changing_nets/net.py").write_text(NETWORK.format(width=width))
        fit(*SMOKE, "--network", "changing_nets.net.Net")
    weights = checkpoint_files.read(RUN.with_name("version_1") / "checkpoints/last.ckpt")["state_dict"]
    assert weights["model.1.weight"].shape == (16, 784)
    assert not {"changing_nets", "changing_nets.net"} & set(sys.modules)


def test_a_module_that_the_program_imported_itself_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    Path("kept_net.py").write_text(NETWORK.format(width=4))
    module = importlib.import_module("kept_net")
    fit(*SMOKE, "--network", "kept_net.Net")
    assert sys.modules.pop("kept_net") is module


def test_a_fit_in_a_thread() -> None:
    """A thread can't handle signals, so it is not interrupted."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit, *SMOKE).result().folder == RUN
        assert pool.submit(predict, "--images", SEVEN).result().folder == Path("lightning_logs/predict/version_0")


def test_threads_run_one_after_the_other() -> None:
    fit(*SMOKE, "--trainer.max_steps", 1)
    before = state()
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda seed: fit(*SMOKE, "--seed_everything", seed), (1, 2, 1)))
    assert runs[0].metrics == runs[2].metrics != runs[1].metrics
    assert len({run.folder for run in runs}) == 3
    assert state() == before


def test_pytest_does_not_collect_the_function_test(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("from mnist_amp.commands import fit, test\n\n\ndef test_own():\n    pass\n")
    args = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path)
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=tmp_path)
    assert [line for line in done.stdout.splitlines() if "::" in line] == ["test_own.py::test_own"]


def test_the_functions_are_imported_without_torch() -> None:
    program = "import sys, mnist_amp.commands; print({'torch', 'lightning', 'jsonargparse'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- interrupts -------------------------------------------------------------------------------------------------------

SENT = ("--trainer.callbacks", "tests.interrupt.Signalled", "--trainer.callbacks.signums")
LONG = (*SMOKE, "--trainer.limit_train_batches", 20, "--trainer.log_every_n_steps", 7)


def test_an_interrupt_leaves_a_checkpoint_to_resume_from(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(signals, "_print", printed.append)
    uninterrupted = fit(*LONG)
    before = state()
    with pytest.raises(KeyboardInterrupt) as raised:
        fit(*LONG, *SENT, [int(signal.SIGINT)], "--trainer.callbacks.step", 5)
    last = RUN.with_name("version_1") / "checkpoints/last.ckpt"
    assert raised.value.args == (
        f"stopped by SIGINT after step 6. Its checkpoint is written. Resume with: mnist-amp fit --ckpt_path {last}",
    )
    assert printed == ["\nStopping after this step; press Ctrl-C again to stop at once.\n"]
    assert state() == before
    assert fit("--ckpt_path", "last", "--trainer.callbacks", None).metrics == uninterrupted.metrics


@pytest.mark.parametrize(("step", "signums"), [(5, [signal.SIGINT] * 2), (None, [signal.SIGINT])])
def test_a_second_interrupt_or_one_before_the_first_step_stops_at_once(
    step: int | None, signums: list[signal.Signals]
) -> None:
    before = state()
    with pytest.raises(KeyboardInterrupt) as raised:
        fit(*LONG, *SENT, [int(signum) for signum in signums], "--trainer.callbacks.step", step)
    assert raised.value.args == ("stopped at once",)
    assert state() == before
    assert files(RUN) >= {"config.yaml"}
    fit(*LONG)


@pytest.mark.parametrize("step", [5, None])
def test_other_signals_reach_the_handler_of_the_program(step: int | None) -> None:
    received: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    handler = signal.signal(signal.SIGTERM, handle)
    try:
        if step is None:  # before the first step there is nothing to save; the program decides
            fit(*LONG, *SENT, [int(signal.SIGTERM)], "--trainer.callbacks.step", None)
        else:
            with pytest.raises(signals.Stopped, match=r"^stopped by SIGTERM after step 6\."):
                fit(*LONG, *SENT, [int(signal.SIGTERM)], "--trainer.callbacks.step", step)
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert set(received) == {signal.SIGTERM}


TERMINATED = """
from mnist_amp.commands import fit
fit(*{args})
print("it goes further")
"""


def test_sigterm_ends_a_program_after_the_checkpoint() -> None:
    args = (*LONG, *SENT, [int(signal.SIGTERM)], "--trainer.callbacks.step", 5)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    program = [sys.executable, "-c", TERMINATED.format(args=args)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == -signal.SIGTERM
    assert "it goes further" not in done.stdout
    assert checkpoint_files.read(RUN / "checkpoints/last.ckpt")["global_step"] == 6


# --- classes of the notebook or program -------------------------------------------------------------------------------


class OwnNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


@pytest.fixture
def own_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Define OwnNet in the program, as a notebook does."""
    monkeypatch.setattr(sys.modules["__main__"], "OwnNet", OwnNet, raising=False)


@pytest.mark.usefixtures("own_net")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_class_of_the_program_is_a_network(by_name: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnNet, "__module__", "__main__")
    fit(*SMOKE, "--network", "__main__.OwnNet" if by_name else OwnNet, "--network.width", 16)
    resumed = fit("--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert resumed.folder == RUN.with_name("version_1")
    weights = checkpoint_files.read(RUN.with_name("version_1") / "checkpoints/last.ckpt")["state_dict"]
    assert weights["model.layers.1.weight"].shape == (16, 784)
    assert commands.test("--trainer.limit_test_batches", 1).metrics["images"] == 64


@pytest.mark.usefixtures("own_net")
def test_another_process_does_not_have_it() -> None:
    fit(*SMOKE, "--network", "__main__.OwnNet")
    script = "import sys; from mnist_amp.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "test"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"mnist-amp: error: {RUN}/checkpoints/best.ckpt has __main__.OwnNet as network, which was defined in the "
        "notebook or program that trained it, and is not defined here. Run its cell first; or write it to a file such "
        "as my_module.py, and give --network my_module.OwnNet.\n"
    )


@pytest.mark.usefixtures("own_net")
@pytest.mark.parametrize("command", ["compare", "profile"])
@pytest.mark.parametrize("option", ["network", "model", "data"])
def test_commands_that_measure_in_other_processes_refuse_it(command: str, option: str) -> None:
    others = () if option == "network" else ("--model", "a.B", "--data", "a.C")
    with pytest.raises(RequestError) as raised:
        getattr(commands, command)(*others, f"--{option}", "__main__.OwnNet")
    assert str(raised.value) == (
        f"{option} is __main__.OwnNet, which is defined in this notebook or program, but {command} measures in "
        "processes of its own. Write it to a file such as my_module.py, and give my_module.OwnNet."
    )
