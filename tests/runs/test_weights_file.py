"""Files with weights alone: each kind gives the weights of the checkpoint, whatever command reads it."""

import builtins
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from mnist_amp.errors import RequestError
from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.weights_file import with_metadata, without_prefixes
from tests.conftest import Malicious, Refused, Run, files, simple_nn
from tests.runs.test_resume import flat

STEP = "--trainer.max_steps=1"
SMOKE = ("--config=configs/smoke.yaml", "--network.hidden_dim=16")
RUN = Path("lightning_logs/version_0")


class GuideNN(nn.Module):
    """The network of the guide, as a reader of it writes it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, width)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(width, 10)


def network(version: int = 0, name: str = "best") -> dict[str, Tensor]:
    """Return the weights of a run's checkpoint, by the names of the network."""
    read = checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/{name}.ckpt"))
    return without_prefixes(read["state_dict"])


def guide(path: Path) -> None:
    model = GuideNN()
    model.load_state_dict(network())
    torch.save(model.state_dict(), path)


def prefixed(prefix: str) -> Callable[[Path], None]:
    return lambda path: torch.save({f"{prefix}{name}": value for name, value in network().items()}, path)


KINDS: dict[str, Callable[[Path], None]] = {
    "guide.pth": guide,
    "compiled.pth": prefixed("_orig_mod."),
    "parallel.pth": prefixed("module._orig_mod."),
    "lightning.pt": prefixed("model."),
    "double.pth": lambda path: torch.save({name: value.double() for name, value in network().items()}, path),
    "plain.safetensors": lambda path: safetensors.torch.save_file(network(), path),
    "ordered.bin": lambda path: torch.save(OrderedDict(network()), path),
}


@pytest.mark.parametrize("kind", [*KINDS, "model.pth"])
@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_each_file_is_scored_as_its_checkpoint(
    run: Run, fitted: Run, monkeypatch: pytest.MonkeyPatch, kind: str, command: str
) -> None:
    """The predictions' temperature is left out: weights alone do not tell the images that it may be fitted on."""
    monkeypatch.setattr("mnist_amp.reporting.prediction_writer.fit_temperature", lambda *_: None)
    fitted(*SMOKE)
    path = RUN / kind if kind == "model.pth" else Path(kind)
    if kind != "model.pth":
        KINDS[kind](path)
    expected, found = run(command, f"--ckpt_path={RUN}"), run(command, f"--ckpt_path={path}")
    assert f"\ncheckpoint  {path} (weights alone)\n" in found
    results = path.parent / f"{command}_{path.stem}"
    if command == "predict":
        reference = RUN / "predict_best" / "predictions.csv"
        assert (results / "predictions.csv").read_text() == reference.read_text()
    else:
        reports = [json.loads((folder / "metrics.json").read_text()) for folder in (RUN / f"{command}_best", results)]
        assert reports[1]["confusion_matrix"] == reports[0]["confusion_matrix"]
        assert (reports[1]["loss"], reports[1]["epochs"], reports[1]["step"]) == (reports[0]["loss"], None, None)
    assert expected != found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halved_weights(run: Run, fitted: Run, dtype: str) -> None:
    fitted(*SMOKE)
    halved = {name: value.to(getattr(torch, dtype)) for name, value in network().items()}
    torch.save(halved, "half.pth")
    read = checkpoint_files.read(Path("half.pth"))["state_dict"]
    assert flat(without_prefixes(read)) == flat({name: value.float() for name, value in halved.items()})


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_exported_files_hold_the_weights_as_they_were_trained(run: Run, fitted: Run, kind: str) -> None:
    """They tell the network and the normalisation, which `test` takes over."""
    fitted(*SMOKE, "--data.mean=0.13")
    run("export", f"--formats=[{kind}]", f"--ckpt_path={RUN}")
    path = Path(f"lightning_logs/export/version_0/model-float32.{kind}")
    read = checkpoint_files.read(path)
    assert flat(without_prefixes(read["state_dict"])) == flat(network())
    assert read["hyper_parameters"]["network"] == simple_nn(16)
    accuracies = [
        run("test", f"--ckpt_path={path}").partition("\naccuracy")[2].partition("\n")[0] for path in (RUN, path)
    ]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_exported_files_of_version_0_1_take_normalised_images_again(run: Run, fitted: Run, kind: str) -> None:
    """Their first layer takes pixels from 0 to 255. Undoing it in float64 leaves the rounding of one float32."""
    fitted(*SMOKE)
    weights, path = network(), Path(f"old.{kind}")
    first, bias = weights["fc1.weight"].double(), weights["fc1.bias"].double()
    old = {**weights, "fc1.weight": (first / 127.5).float(), "fc1.bias": (bias - first.sum(dim=1)).float()}
    source = {"name": "images", "shape": ["N", 28, 28], "dtype": "float32", "range": [0, 255], "meaning": "pixels"}
    if kind == "pth":
        torch.save(with_metadata(old, {"classes": list("0123456789"), "input": source}), path)
    else:
        safetensors.torch.save_file(old, path, metadata={"input": json.dumps(source)})
    read = checkpoint_files.read(path)["state_dict"]
    torch.testing.assert_close(without_prefixes(read), weights, rtol=1e-6, atol=1e-5)
    accuracies = [
        run("test", f"--ckpt_path={path}").partition("\naccuracy")[2].partition("\n")[0] for path in (RUN, path)
    ]
    assert accuracies[0] == accuracies[1]


def test_weights_of_another_network_need_its_name_only(run: Run, fitted: Run) -> None:
    """A state_dict that any PyTorch code saved: the file does not tell its network, the command line does."""
    run("fit", "--config=smoke.yaml", "--network=CNN", "--network.width=4")
    torch.save(network(), "plain.pth")
    out = run("fit", "--config=smoke.yaml", "--network=CNN", "--network.width=4", "--weights=plain.pth", STEP)
    assert "\nweights    from plain.pth\n" in out
    assert_one_step_of(network(1, "last"), network())
    printed = run("test", "--network=CNN", "--network.width=4", "--ckpt_path=plain.pth")
    assert "\ncheckpoint  plain.pth (weights alone)\n" in printed


def assert_one_step_of(after: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    trained = [name for name in after if "num_batches" not in name and "running" not in name]
    assert all((after[name] - before[name]).abs().max() <= 0.001 * 1.001 for name in trained)


def test_export_of_weights_alone(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    outs = [run("export", "--formats=[pth]", f"--ckpt_path={path}") for path in (RUN, RUN / "model.pth")]
    assert f"checkpoint  {RUN}/model.pth (weights alone), " in outs[1]
    first, second = (
        torch.load(f"lightning_logs/export/version_{version}/model-float32.pth", weights_only=True)
        for version in (0, 1)
    )
    assert flat(dict(first)) == flat(dict(second))


def test_validation_images_may_be_known(run: Run, fitted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from mnist_amp.__main__ import main

    fitted(*SMOKE)
    main(["validate", f"--ckpt_path={RUN / 'model.pth'}"])
    assert capsys.readouterr().err.splitlines()[0] == (
        f"mnist-amp: warning: {RUN}/model.pth holds weights alone, so it is unknown whether they were trained on the "
        "validation images. There is no temperature."
    )


# a new run with these weights


@pytest.mark.parametrize("source", ["model.pth", "checkpoints/best.ckpt", "", "best", "guide.pth"])
def test_a_new_run_begins_with_the_weights(run: Run, fitted: Run, source: str) -> None:
    """It is a run of a module into which the weights are loaded by hand, to the last bit."""
    fitted(*SMOKE)
    guide(Path("guide.pth"))
    path = source if source in ("best", "guide.pth") else str(RUN / source)
    out = run("fit", *SMOKE[:1], f"--weights={path}", "--trainer.max_steps=1")
    assert ", 12,730 parameters\n" in out  # the width is that of the file
    assert "\nweights    from " in out
    module = LitClassifier(simple_nn(16))
    module.model.load_state_dict(network())
    assert_one_step(module, network(1, "last"))


def assert_one_step(module: LitClassifier, expected: dict[str, Tensor]) -> None:
    """Assert that the first step of Adam changes each weight by no more than the learning rate, and changes some."""
    before = module.model.state_dict()
    for name, weight in expected.items():
        assert (weight - before[name]).abs().max() <= 0.001 * 1.001
    assert any(not torch.equal(weight, before[name]) for name, weight in expected.items())


def test_the_new_run_is_that_of_weights_loaded_by_hand(run: Run, fitted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(*SMOKE)
    weights = network()
    run("fit", *SMOKE, f"--weights={RUN / 'model.pth'}")
    monkeypatch.setattr(LitClassifier, "setup", lambda self, stage: self.model.load_state_dict(weights))
    run("fit", *SMOKE)
    assert flat(network(1, "last")) == flat(network(2, "last"))


def test_a_resumed_run_does_not_need_the_file(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    guide(Path("guide.pth"))
    run("fit", *SMOKE, "--weights=guide.pth", "--trainer.max_epochs=2")
    run("fit", *SMOKE, "--weights=guide.pth", "--trainer.max_epochs=1")
    Path("guide.pth").unlink()
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert flat(network(3, "last")) == flat(network(1, "last"))
    assert "\nweights" not in run("fit", f"--config={RUN.with_name('version_1')}/config.yaml")


def test_from_the_environment_and_a_file(run: Run, fitted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(*SMOKE)
    Path("weights.yaml").write_text(f"weights: {RUN}/model.pth\n")
    assert f"\nweights    from {RUN}/model.pth\n" in run("fit", *SMOKE, "--config=weights.yaml")
    monkeypatch.setenv("MNIST_AMP_WEIGHTS", f"{RUN}/model.pth")
    assert f"\nweights    from {RUN}/model.pth\n" in run("fit", *SMOKE)


def test_layers_that_do_not_fit_stay_random(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    weights = network()
    torch.save(
        {**weights, "fc2.weight": torch.zeros(3, 16), "fc2.bias": torch.zeros(3), "head": torch.ones(1)}, "three.pth"
    )
    out = run("fit", *SMOKE, "--weights=three.pth", "--weights_strict=false", "--trainer.max_steps=1")
    random = "random: model.fc2.weight, model.fc2.bias; not used: model.head"
    assert f"\nweights    from three.pth; {random}\n" in out
    after = network(1, "last")
    assert (after["fc1.weight"] - weights["fc1.weight"]).abs().max() <= 0.001 * 1.001
    torch.manual_seed(42)
    fresh = LitClassifier(simple_nn(16)).model.state_dict()
    assert (after["fc2.weight"] - fresh["fc2.weight"]).abs().max() <= 0.001 * 1.001


NONE = "Give the network the shape of the file, or keep these layers random with --weights_strict false."


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("fit", "--weights=model.pth", "--network.hidden_dim=8"),
            "model.pth holds another network (file -> now): network.hidden_dim 16 -> 8. Leave network.hidden_dim "
            "out, or keep the layers that differ random with --weights_strict false.",
        ),
        (
            ("fit", "--weights=more.pth"),
            "more.pth does not fit the network. These layers differ (file -> network): model.fc1.weight 16 x 784 -> "
            "128 x 784, model.fc1.bias 16 -> 128, model.fc2.weight 10 x 16 -> 10 x 128, model.fc3.weight 2 -> missing. "
            f"{NONE}",
        ),
        (
            ("fit", "--weights=tiny.pth", "--weights_strict=false", "--network.hidden_dim=8"),
            "tiny.pth does not fit the network. These layers differ (file -> network): model.fc1.weight 2 x 2 -> "
            "8 x 784, model.fc1.bias missing -> 8, model.fc2.weight missing -> 10 x 8, model.fc2.bias missing -> 10. "
            "No layer fits: name the network of the "
            "file with --network, or rename its layers.",
        ),
        (
            ("fit", "--weights=other.pth"),
            "other.pth does not fit the network. These layers differ (file -> network): model.fc1.weight missing -> "
            "128 x 784, model.fc1.bias missing -> 128, model.fc2.weight missing -> 10 x 128, model.fc2.bias missing -> "
            "10, model.conv.weight 2 x 2 -> missing. No layer fits: name the network of the "
            "file with --network, or rename its layers.",
        ),
        (
            ("fit", "--weights=counts.pth"),
            "counts.pth does not hold the weights of a network. Its layers are fc1.weight (2 x 2 int64).",
        ),
        (
            ("fit", "--weights=nan.pth"),
            "nan.pth has values in model.fc2.bias that are not finite in float32. Use other weights.",
        ),
        (("fit", "--weights=http://a.b/c.pth"), "http://a.b/c.pth is not a local file. Download the checkpoint first."),
        (
            ("fit", "--weights=model.pth", "--ckpt_path=last"),
            "weights begins a new run, and ckpt_path resumes one. Leave one of them out. See mnist-amp fit --help.",
        ),
        (
            ("fit", "--ckpt_path=model.pth"),
            "model.pth has no optimizer state, so no fit can resume from it. To begin a new run with its weights, use "
            "--weights model.pth instead.",
        ),
        (
            ("test", "--ckpt_path=model.pth", "--network.hidden_dim=8"),
            "model.pth holds another network (checkpoint -> now): network.hidden_dim 16 -> 8. Leave network.hidden_dim "
            "out, or start without this checkpoint.",
        ),
        (("fit", "--weights=torn.pth"), "torn.pth (100 bytes) is not a checkpoint, or it is truncated or damaged."),
        (
            ("fit", "--weights=code.pth"),
            "code.pth holds objects other than tensors and plain values. It is refused because loading it could run "
            "code.",
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_refused(run: Run, fitted: Run, refused: Refused, args: tuple[str, ...], message: str) -> None:
    fitted(*SMOKE)
    weights = network()
    torch.save(weights, "model.pth")
    torch.save({**weights, "fc3.weight": torch.zeros(2)}, "more.pth")
    torch.save({"fc1.weight": torch.zeros(2, 2)}, "tiny.pth")
    torch.save({"conv.weight": torch.zeros(2, 2)}, "other.pth")
    torch.save({"fc1.weight": torch.zeros(2, 2, dtype=torch.int64)}, "counts.pth")
    torch.save({**weights, "fc2.bias": torch.full((10,), torch.nan)}, "nan.pth")
    torch.save({"fc1.weight": Malicious()}, "code.pth")
    Path("torn.pth").write_bytes(Path("model.pth").read_bytes()[:100])
    before = files(Path())
    assert refused(*args) == f"mnist-amp: error: {message}\n"
    assert files(Path()) == before


def test_safetensors_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(RequestError, match=r"model\.safetensors can't be read: "):
        checkpoint_files.read(path)
    path.write_bytes(b"no")
    with pytest.raises(RequestError, match=r"is not a \.safetensors file, or it is truncated or damaged: "):
        checkpoint_files.read(path)
    real = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name == "safetensors":
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RequestError, match=r"Install the extra export: pip install 'mnist-amp\[export\]'\.$"):
        checkpoint_files.read(path)
