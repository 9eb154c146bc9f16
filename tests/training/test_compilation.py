"""`compile`: the steps are those of an eager fit within rounding, and a run is resumed to the bit."""

import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelPruning, StochasticWeightAveraging
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn.utils import prune

from mnist_amp.data import ClassificationDataModule
from mnist_amp.errors import RequestError
from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_files
from mnist_amp.training.compilation import PART, WHOLE, Compilation, CompileUse
from tests.conftest import Refused, Run, simple_nn
from tests.runs.test_exact import KEPT, SETTINGS, interrupted, last, resume
from tests.runs.test_resume import flat
from tests.training.small_trainer import small_trainer

# 20 batches of 48 images, and one of 40
DATA: dict[str, Any] = {"val_size": 59_000, "batch_size": 48}
SGD = {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}}
ONE_CYCLE = {
    "lr_scheduler": {
        "class_path": "torch.optim.lr_scheduler.OneCycleLR",
        "init_args": {"max_lr": 0.01, "total_steps": 50},
    }
}
PRUNING = ModelPruning("l1_unstructured")
COMPILED = (*SETTINGS, "--compile")
compile_function: Callable[..., Any] = torch.compile


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep compiled code for other tests and other test runs: to generate it takes ten times as long as to load it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "mnist-amp-tests-inductor"))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace the functions as torch.compile does, but generate no code."""

    def traced(function: Callable[..., Any], **settings: Any) -> Any:
        return compile_function(function, **settings, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)


class Jittery(nn.Module):
    """A network that reads a value of a tensor in Python, which can't be part of a single function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        scale = 1.0 if images.mean().item() > 9 else 0.5
        logits: Tensor = self.layer(images.flatten(1)) * scale
        return logits


class Counting(nn.Sequential):
    """A network that counts its calls in Python, and computes with the count."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self[1](self[0](images)) / self.calls
        return logits


class Noisy(nn.Sequential):
    """A network with random numbers and buffers."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Flatten(), nn.Linear(784, 8), nn.Tanh()),
            *(nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 10)),
        )


class Unused(nn.Sequential):
    """A network with a layer that it does not use."""

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
        self.other = nn.Linear(2, 2).requires_grad_(not frozen)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self[1](self[0](images))
        return logits


class Adam:
    """Has the name of torch's optimizer; a subclass of it would make the short name ambiguous in other tests."""


class Changes(Callback):
    """Changes the network at the beginning of the second epoch."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.change(pl_module.model)


class Watched(LitClassifier):
    pass


class HookWithinStep(Callback):
    def on_before_optimizer_step(self, *args: Any) -> None:
        pass


class HookOfEachStep(Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        pass


def trained(data_dir: Path, *, compile: bool, trainer: dict[str, Any] | None = None, **settings: Any) -> LitClassifier:
    """Train for 25 steps, beyond the end of an epoch, and return the module."""
    torch.manual_seed(0)
    module = LitClassifier(compile=compile, **{"network": simple_nn(8), **settings})
    fit = small_trainer(**{"max_epochs": 2, "max_steps": 25, **(trainer or {})})
    fit.fit(module, ClassificationDataModule(str(data_dir), **DATA))
    return module


def use(module: LitClassifier) -> CompileUse:
    assert module.compilation is not None
    return module.compilation.use()


def assert_close(found: LitClassifier, wanted: LitClassifier) -> None:
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert found.state_dict().keys() == wanted.state_dict().keys()
    torch.testing.assert_close(found.train_means.rows(), wanted.train_means.rows(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}, {"betas": (0.5, 0.7), "eps": 1e-3, "lr": 0.01}],
)
@pytest.mark.usefixtures("traced")
def test_the_update_is_that_of_torch(data_dir: Path, name: str, settings: dict[str, Any]) -> None:
    optimizer = {"class_path": f"torch.optim.{name}", "init_args": {"lr": 0.001, **settings}}
    found, wanted = (trained(data_dir, compile=compile, optimizer=optimizer) for compile in (True, False))
    assert use(found).what == WHOLE
    assert_close(found, wanted)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.usefixtures("traced")
def test_the_schedule_is_followed(data_dir: Path, steps: int) -> None:
    settings: dict[str, Any] = {
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 0.8}},
        "lr_scheduler_interval": "step",
    }
    found = trained(data_dir, compile=True, steps_per_execution=steps, **settings)
    wanted = trained(data_dir, compile=False, **settings)
    assert use(found).what == WHOLE
    assert_close(found, wanted)


def test_generated_code_gives_the_same_within_rounding(data_dir: Path) -> None:
    found, wanted = (trained(data_dir, compile=compile) for compile in (True, False))
    assert (use(found).what, use(found).reason) == (WHOLE, None)
    assert use(found).seconds > 0
    assert_close(found, wanted)


@pytest.mark.parametrize(
    "more",
    [
        ("--network.hidden_dim=8",),
        ("--network.hidden_dim=8", "--trainer.gradient_clip_val=0.5"),
        (f"--network={__name__}.Noisy",),
    ],
    ids=["whole", "part", "noisy"],
)
def test_a_compiled_run_is_resumed_to_the_bit(run: Run, more: tuple[str, ...]) -> None:
    printed = run("fit", *COMPILED, *more)
    what = "the network and its loss, because gradients are clipped" if "clip" in str(more) else "the whole step"
    assert f"\ncompiles   {what}\n" in printed
    assert f"\ncompiled  {what.partition(',')[0]} in " in printed
    interrupted(run, 31, *COMPILED, *more)  # in the midst of an epoch
    resume(run)
    for key in KEPT:
        assert flat(last(2).get(key)) == flat(last(0).get(key)), key


@pytest.mark.usefixtures("traced")
def test_a_run_is_resumed_with_and_without_compile(run: Run) -> None:
    run("fit", *COMPILED, "--trainer.max_epochs=1")
    printed = run("fit", "--ckpt_path=last", "--compile=false", "--trainer.max_epochs=2")
    assert "\nchanged     compile True -> False\n" in printed
    assert "compiles" not in printed
    printed = run("fit", "--ckpt_path=last", "--compile", "--trainer.max_epochs=3")
    assert "\ncompiles    the whole step\n" in printed
    assert checkpoint_files.read(Path("lightning_logs/version_2/checkpoints/last.ckpt"))["global_step"] == 60
    run("test", "--trainer.limit_test_batches=1")


@pytest.mark.parametrize(
    ("settings", "trainer", "reason"),
    [
        ({}, {}, None),
        (SGD, {}, "the optimizer is torch.optim.SGD, neither torch.optim.Adam nor torch.optim.AdamW"),
        (
            {"optimizer": {"class_path": f"{__name__}.Adam", "init_args": {}}},
            {},
            f"the optimizer is {__name__}.Adam, neither torch.optim.Adam nor torch.optim.AdamW",
        ),
        (
            {"network": {"class_path": f"{__name__}.Unused", "init_args": {"frozen": True}}},
            {},
            "model.other.weight is not trained (requires_grad is False)",
        ),
        (ONE_CYCLE, {}, "the schedule changes more than the learning rate"),
        ({}, {"profiler": "simple"}, "SimpleProfiler measures the parts of a step"),
        ({}, {"callbacks": [PRUNING]}, "ModelPruning changes which weights are trained, or how"),
        ({}, {"callbacks": [HookOfEachStep()]}, "on_train_batch_end of HookOfEachStep may look at each step"),
        ({}, {"gradient_clip_val": 1.0}, "gradients are clipped"),
        ({}, {"accumulate_grad_batches": 2}, "gradients are accumulated over batches"),
        ({}, {"precision": "bf16-mixed"}, None),
        ({}, {"precision": "64-true"}, "the precision is 64-true, which changes more of a step than its types"),
        ({}, {"callbacks": [HookWithinStep()]}, "HookWithinStep has a hook that runs in each step"),
        (
            {},
            {"callbacks": [StochasticWeightAveraging(0.1)]},
            "StochasticWeightAveraging changes which weights are trained, or how",
        ),
    ],
)  # fmt: skip
def test_what_is_compiled(settings: dict[str, Any], trainer: dict[str, Any], reason: str | None) -> None:
    module = LitClassifier(compile=True, **settings)
    assert module.compilation is not None
    fit = small_trainer(**trainer)
    fit.strategy.connect(module)
    assert module.compilation.obstacle(fit) == reason
    assert module.compilation.describe(fit) == (WHOLE if reason is None else f"{PART}, because {reason}")


def test_a_subclass_may_do_more_in_a_step() -> None:
    module = Watched(compile=True)
    assert module.compilation is not None
    assert module.compilation.obstacle(small_trainer()) == "Watched may do more in a step"


@pytest.mark.usefixtures("traced")
def test_a_network_that_is_no_single_function(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = {"class_path": f"{__name__}.Jittery", "init_args": {}}
    found, wanted = (trained(data_dir, compile=compile, network=network) for compile in (True, False))
    warning = capsys.readouterr().err
    assert "the network and its loss are compiled instead of the whole step, because torch can't compile it" in warning
    assert use(found).what == PART
    assert_close(found, wanted)


@pytest.mark.usefixtures("traced")
def test_a_network_that_counts_its_calls(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = {"class_path": f"{__name__}.Counting", "init_args": {}}
    found, wanted = (trained(data_dir, compile=compile, network=network) for compile in (True, False))
    assert (use(found).what, use(found).reason) == (PART, "torch can't compile it as a whole")
    assert capsys.readouterr().err.endswith(
        "torch can't compile it as a whole: a Python variable of the network changes in each step\n"
    )
    assert found.model.calls == wanted.model.calls
    assert_close(found, wanted)


@pytest.mark.usefixtures("traced")
def test_a_weight_without_gradient(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = {"class_path": f"{__name__}.Unused", "init_args": {}}
    found, wanted = (trained(data_dir, compile=compile, network=network) for compile in (True, False))
    reason = "model.other.weight gets no gradient"
    assert (use(found).what, use(found).reason) == (PART, reason)
    assert capsys.readouterr().err.count(f"are compiled instead of the whole step, because {reason}\n") == 1
    assert_close(found, wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[1].requires_grad_(requires_grad=False),
        lambda model: setattr(model[4], "p", 0.9),
        lambda model: model[3].eval(),
        lambda model: model[5].register_forward_hook(lambda layer, inputs, output: output * 2),
        lambda model: prune.l1_unstructured(model[1], "weight", amount=0.9),  # type: ignore[no-untyped-call]
        lambda model: model.insert(5, nn.Tanh()),
    ],
    ids=["freeze", "dropout", "eval", "hook", "prune", "layer"],
)
@pytest.mark.parametrize("clip", [None, 100.0], ids=["whole", "part"])
@pytest.mark.usefixtures("traced")
def test_a_callback_changes_the_network(data_dir: Path, change: Callable[[Any], Any], clip: float | None) -> None:
    network = {"class_path": f"{__name__}.Noisy", "init_args": {}}
    trainer = {"callbacks": [Changes(change)], "gradient_clip_val": clip}
    found, wanted = (trained(data_dir, compile=compile, network=network, trainer=trainer) for compile in (True, False))
    reason = "gradients are clipped" if clip else "a callback has changed the network"
    assert (use(found).what, use(found).reason) == (PART, reason)
    assert_close(found, wanted)


@pytest.mark.usefixtures("traced")
def test_a_callback_that_changes_nothing(data_dir: Path) -> None:
    assert use(trained(data_dir, compile=True, trainer={"callbacks": [Changes(lambda model: None)]})).what == WHOLE


@pytest.mark.parametrize("trainer", [{}, {"gradient_clip_val": 100.0}], ids=[WHOLE, PART])
@pytest.mark.usefixtures("traced")
def test_random_numbers_and_buffers_are_those_of_an_eager_fit(data_dir: Path, trainer: dict[str, Any]) -> None:
    network = {"class_path": f"{__name__}.Noisy", "init_args": {}}
    found, wanted = (trained(data_dir, compile=compile, network=network, trainer=trainer) for compile in (True, False))
    assert use(found).what == (PART if trainer else WHOLE)
    assert int(found.state_dict()["model.3.num_batches_tracked"]) == 25
    assert_close(found, wanted)


@pytest.mark.usefixtures("traced")
def test_averaged_weights(data_dir: Path) -> None:
    found, wanted = (
        trained(data_dir, compile=compile, trainer={"callbacks": [EMAWeightAveraging(decay=0.9)]})
        for compile in (True, False)
    )
    assert use(found).what == WHOLE
    assert_close(found, wanted)


def test_backward_passes_are_compiled_in_the_time_of_compiling(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def compiler(name: str) -> Callable[..., Any]:
        def compiled(graph: Any, inputs: Any) -> Any:
            events.append(name)
            return graph

        return compiled

    @contextmanager
    def timed(self: Compilation) -> Iterator[None]:
        events.append("begin")
        yield
        events.append("end")

    backend = aot_autograd(fw_compiler=compiler("forward"), bw_compiler=compiler("backward"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_function(function, backend=backend))
    monkeypatch.setattr(Compilation, "_timed", timed)
    trained(data_dir, compile=True, trainer={"gradient_clip_val": 1.0})
    assert events == ["begin", "end", "begin", *(2 * ["forward", "backward"]), "end"]


@pytest.mark.usefixtures("traced")
def test_a_module_can_be_copied_after_a_fit(data_dir: Path) -> None:
    module = trained(data_dir, compile=True)
    assert module.compilation is not None
    module.compilation.end()
    assert (use(module).what, use(module).reason, module.compilation.step) == (WHOLE, None, None)
    module.execution.direct = None
    assert copy.deepcopy(module).state_dict().keys() == module.state_dict().keys()


@pytest.mark.usefixtures("traced")
def test_a_fit_of_one_step_compiles_nothing(data_dir: Path) -> None:
    module = trained(data_dir, compile=True, trainer={"max_steps": 1})
    assert str(use(module)) == "nothing, because the fit ended after its first step"


@pytest.mark.usefixtures("traced")
def test_flag_file_and_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("compile.yaml").write_text("compile: true\n")
    for args in (["--compile"], ["--compile=true"], ["--config=compile.yaml"]):
        assert "\ncompiles   the whole step\n" in run("fit", "--config=smoke.yaml", *args)
    monkeypatch.setenv("MNIST_AMP_COMPILE", "true")
    assert "\ncompiles   the whole step\n" in run("fit", "--config=smoke.yaml")


def test_without_a_compiler_nothing_is_made(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import config

    monkeypatch.setenv("CXX", f"{tmp_path}/no-compiler")
    with config.patch({"cpp.cxx": (None, os.environ["CXX"])}):
        named = refused("fit", "--config=smoke.yaml", "--compile")
        monkeypatch.delenv("CXX")
        unnamed = refused("fit", "--config=smoke.yaml", "--compile")
    assert named == (
        f"mnist-amp: error: compile is set, but CXX is {tmp_path}/no-compiler, which can't be run. Name another C++ "
        "compiler in this environment variable, or leave compile out.\n"
    )
    assert unnamed == (
        "mnist-amp: error: compile is set, but no C++ compiler is found. Install g++, name one in the environment "
        "variable CXX, or leave compile out.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", f"{tmp_path}/file/cache")
    assert refused("fit", "--config=smoke.yaml", "--compile") == (
        f"mnist-amp: error: compile is set, but TORCHINDUCTOR_CACHE_DIR is {tmp_path}/file/cache, where no file can be "
        "written (Not a directory). Name another folder in it, or leave compile out.\n"
    )


def test_a_value_that_is_neither_true_nor_false(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("fit", "--compile=maybe").startswith(
        "mnist-amp: error: compile can't be maybe; it takes true or false."
    )
    monkeypatch.setenv("MNIST_AMP_COMPILE", "1")
    assert "compile can't be 1; it takes true or false." in refused("fit")


def test_only_fits_are_compiled(refused: Refused) -> None:
    assert refused("profile", "--compile") == (
        "mnist-amp: error: compile is set, but profile measures the parts of a step, which are one then. Leave it "
        "out.\n"
    )
    assert refused(
        "compare",
        "--compile",
        "--model=tests.measuring.own_modules.LitCNN",
        "--data=tests.measuring.own_modules.Images",
    ) == (
        "mnist-amp: error: compile is set, but the training_step of tests.measuring.own_modules.LitCNN may do "
        "anything. Leave it out, and compile in the module: self.net.compile().\n"
    )
    assert refused("test", "--print_config", "--compile") == (
        "mnist-amp: error: there is no option compile. See mnist-amp test --help.\n"
    )


def test_the_check_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = LitClassifier(compile=True)
    monkeypatch.setattr(
        "mnist_amp.training.compilation.compiler_problem", lambda device: f"there is no {device}. Buy it"
    )
    with pytest.raises(RequestError, match=r"^compile is set, but there is no cpu\. Buy it, or leave compile out\.$"):
        Compilation(module).check(small_trainer())
