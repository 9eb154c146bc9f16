"""The lines that are printed before a command runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from mnist_amp.reporting.banner import Banner
from mnist_amp.runs.checkpoint_contents import PRECISION_KEY
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.training.precision import EMULATED_SPEED, advice, device_name, half_hardware, versions


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(999, 1)


def banner(capsys: pytest.CaptureFixture[str], *args: Any, stage: str = "fit", **settings: Any) -> list[str]:
    """Return the lines of a Banner of these arguments, for a Trainer of these settings."""
    trainer = Trainer(accelerator="cpu", logger=False, **settings)
    capsys.readouterr()
    Banner(*args).setup(trainer, Net(), stage)
    return capsys.readouterr().out.splitlines()


def test_all_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run: Any = RunFolder.__new__(RunFolder)
    run.path = "lightning_logs/version_0"
    lines = {"seed": "42", "checkpoint": "last.ckpt (5 epochs done, step 4,300)", "changed": "optimizer.lr 0.1 -> 0.2"}
    checkpoint = {PRECISION_KEY: "16-mixed"}
    device = device_name(Trainer(accelerator="cpu", logger=False))
    packages = ", ".join(f"{package} {version}" for package, version in versions().items())
    assert banner(capsys, "32-true", lines, checkpoint, callbacks=[run]) == [
        f"device      {device}",
        "precision   32-true",
        f"versions    {packages}",
        "network     Net, 1,000 parameters",
        "seed        42",
        "checkpoint  last.ckpt (5 epochs done, step 4,300)",
        "changed     optimizer.lr 0.1 -> 0.2, precision 16-mixed -> 32-true",
        "writes to   lightning_logs/version_0",
    ]


def test_without_more_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = banner(capsys, None, {}, stage="test")
    assert [line.split()[0] for line in lines] == ["device", "precision", "versions", "network"]


@pytest.mark.filterwarnings("ignore:.*16:UserWarning")  # Lightning comments on some of these requests
@pytest.mark.parametrize(
    ("requested", "line"),
    [
        ("16-mixed", "bf16-mixed (requested: 16-mixed, which is fp16 on a GPU and bfloat16 on a CPU)"),
        (16, "bf16-mixed (requested: 16, which is fp16 on a GPU and bfloat16 on a CPU)"),
        ("bf16", "bf16-mixed (requested: bf16)"),
        ("bf16-mixed", "bf16-mixed"),
        (32, "32-true (requested: 32)"),
        ("64-true", "64-true"),
    ],
)
def test_precision_requested_and_effective(requested: str | int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert banner(capsys, requested, {}, precision=requested)[1] == f"precision  {line}"


def test_tf32_is_reported_whichever_name_of_float32_was_requested(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_amp.reporting.banner.described_precision", lambda trainer: "32-true with TF32")
    assert banner(capsys, "32-true", {})[1] == "precision  32-true with TF32"
    assert banner(capsys, 32, {})[1] == "precision  32-true with TF32 (requested: 32)"


@pytest.mark.filterwarnings("ignore:.*16:UserWarning")
@pytest.mark.parametrize(
    ("precision", "stage", "multiplies", "advised"),
    [
        ("16-mixed", "fit", False, True),
        ("bf16-mixed", "fit", False, True),
        ("bf16-true", "fit", False, True),
        ("bf16-mixed", "fit", True, False),
        ("32-true", "fit", False, False),
        ("64-true", "fit", False, False),
        ("bf16-mixed", "test", False, True),
    ],
)
def test_advice_on_a_cpu_without_bfloat16(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    stage: str,
    multiplies: bool,
    advised: bool,
) -> None:
    monkeypatch.setattr("mnist_amp.training.precision.cpu_multiplies", lambda dtype: multiplies)
    lines = banner(capsys, None, {}, stage=stage, precision=precision)
    assert [line for line in lines if line.startswith("advice")] == advised * [
        "advice     use --trainer.precision 32-true: this CPU has no instructions for bfloat16, so PyTorch emulates it "
        "(0.46 times as fast as 32-true where it was measured; `mnist-amp compare` measures it here)"
    ]


def test_the_speed_in_the_advice_is_the_measured_one() -> None:
    verdict = Path(__file__).parents[2] / "docs" / "results" / "verdict-cpu.md"
    assert f"bf16-mixed is {EMULATED_SPEED} times as fast as 32-true" in verdict.read_text()


def test_advice_for_real_fp16_on_a_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_amp.training.precision.cpu_multiplies", lambda dtype: dtype != torch.float16)
    lines = banner(capsys, None, {}, plugins=MixedPrecision("16-mixed", "cpu"))
    assert lines[2] == (
        "advice     use --trainer.precision 32-true, unless you try the code path of a GPU: this CPU has no "
        "instructions for fp16, so PyTorch emulates it"
    )


@pytest.mark.parametrize(
    ("effective", "capability", "expected"),
    [
        ("bf16-mixed", (7, 5), "use --trainer.precision 16-mixed: this GPU has no instructions for bfloat16"),  # a T4
        ("bf16-true", (6, 1), "use --trainer.precision 32-true: this GPU has no instructions for bfloat16"),
        ("16-mixed", (6, 1), "use --trainer.precision 32-true: this GPU has no instructions for fp16"),
        ("16-mixed", (7, 5), None),
        ("bf16-mixed", (8, 0), None),
        ("32-true", (6, 1), None),
    ],
)
def test_advice_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, effective: str, capability: tuple[int, int], expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = advice(_trainer("cuda", effective))
    assert found == (None if expected is None else f"{expected}, so PyTorch emulates it")


def test_what_apples_gpu_has_is_not_known() -> None:
    trainer = _trainer("mps", "bf16-mixed")
    assert (half_hardware(trainer), advice(trainer)) == (None, None)


def _trainer(device: str, effective: str) -> Any:
    strategy, plugin = SimpleNamespace(root_device=torch.device(device)), SimpleNamespace(precision=effective)
    return SimpleNamespace(strategy=strategy, precision_plugin=plugin)


def test_only_one_process_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    trainer: Any = SimpleNamespace()
    Banner(None, {}).setup(trainer, Net(), "fit")
    assert capsys.readouterr().out == ""
