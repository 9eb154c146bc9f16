"""`--weights` of fit, and weights alone as the `--ckpt_path` of every other command."""

import itertools
import json
import os
import re
import shutil
import signal
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import resume_fuzz
from mnist_amp.__main__ import main
from mnist_amp.module import LitClassifier
from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.weights_file import without_prefixes
from plain_loop import PlainLoop, Settings
from tests.conftest import ROOT, Refused, Run, files, simple_nn, started
from tests.data.image_files import write_image
from tests.runs.test_resume import flat
from tests.runs.test_weights_file import KINDS, RUN, SMOKE, network

FIT = ("fit", "--config=configs/smoke.yaml")
ONE_STEP = "--trainer.max_steps=1"


def save_all(folder: Path) -> None:
    """Save the weights of the first run as each kind of file."""
    for name, save in KINDS.items():
        save(folder / name)


# the new run


@pytest.mark.parametrize("kind", [*KINDS, "model.pth", "best.ckpt"])
def test_the_new_run_equals_a_loop_of_plain_pytorch(run: Run, fitted: Run, kind: str) -> None:
    """The loop begins with weights that are loaded by hand. Weights and optimizer are equal to the last bit."""
    fitted(*SMOKE)
    save_all(Path())
    path = {"model.pth": RUN / kind, "best.ckpt": RUN / "checkpoints" / kind}.get(kind, Path(kind))
    adam = ("Adam", {"lr": 0.001, "amsgrad": False, "fused": False})
    settings = Settings(
        optimizer=adam,
        schedule=None,
        callback=None,
        precision="32-true",
        clip=None,
        accumulate=1,
        batch_size=64,
        max_epochs=2,
        steps_per_execution=1,
        log_every_n_steps=1,
    )
    assert resume_fuzz.fit(settings, f"--weights={path}").status == 0
    module = LitClassifier(simple_nn(16))
    module.model.load_state_dict(network())
    loop = PlainLoop(settings, module.model)
    loop.run(resume_fuzz.images_of_epochs())
    resume_fuzz.assert_equal(resume_fuzz.read_last(1), loop, kind)


def test_the_saved_configuration_is_that_of_a_run_without_weights(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    run(*FIT, f"--weights={RUN}/model.pth", "--weights_strict=false")
    saved = (RUN.with_name("version_1") / "config.yaml").read_text()
    assert saved == (RUN / "config.yaml").read_text()
    assert "\nweights: null\nweights_strict: true\n" in saved


@pytest.mark.parametrize("part", ["fc1", "fc2"])
def test_a_file_with_one_layer(run: Run, fitted: Run, refused: Refused, part: str) -> None:
    """Its shape is enough to know the width."""
    fitted(*SMOKE)
    torch.save({name: value for name, value in network().items() if name.startswith(part)}, "part.pth")
    other = {"fc1": "fc2", "fc2": "fc1"}[part]
    out = run(*FIT, "--weights=part.pth", "--weights_strict=false", ONE_STEP)
    assert f"\nweights    from part.pth; random: model.{other}.weight, model.{other}.bias\n" in out
    assert ", 12,730 parameters\n" in out
    shapes = {"fc1": ("16 x 784", "16"), "fc2": ("10 x 16", "10")}[other]
    assert refused(*FIT, "--weights=part.pth") == (
        "mnist-amp: error: part.pth does not fit the network. These layers differ (file -> network): "
        f"model.{other}.weight missing -> {shapes[0]}, model.{other}.bias missing -> {shapes[1]}. Give the network the "
        "shape of the file, or keep these layers random with --weights_strict false.\n"
    )


@pytest.mark.parametrize("way", ["argument", "environment", "config"])
def test_another_width(run: Run, fitted: Run, refused: Refused, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """However it is given, it is refused, or taken if layers may differ."""
    fitted(*SMOKE)
    Path("width.yaml").write_text("network: {init_args: {hidden_dim: 8}}\n")
    if way == "environment":
        monkeypatch.setenv("MNIST_AMP_NETWORK__HIDDEN_DIM", "8")
    given = {
        "argument": ["--network.hidden_dim=8"],
        "config": ["--config=width.yaml"],
        "group": ["--network=group.yaml"],
    }
    args = (*FIT, *given.get(way, []), f"--weights={RUN}/model.pth")
    before = files(Path())
    assert refused(*args) == (
        f"mnist-amp: error: {RUN}/model.pth holds another network (file -> now): network.hidden_dim 16 -> 8. Leave "
        "network.hidden_dim out, or keep the layers that differ random with --weights_strict false.\n"
    )
    assert files(Path()) == before
    random = "random: model.fc1.weight, model.fc1.bias, model.fc2.weight"
    assert f"\nweights    from {RUN}/model.pth; {random}\n" in run(*args, "--weights_strict=false", ONE_STEP)


def test_images_of_other_classes(run: Run, fitted: Run, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a 6 would shift the labels; another set of ten classes is learned, with a warning."""
    fitted(*SMOKE)
    for digit, number in itertools.product(range(10), range(3)):
        write_image(Path("digits", str(digit), f"{number}.png"), 20 * digit, (28, 28))
    args = (*FIT, f"--weights={RUN}/checkpoints/best.ckpt", "--data.folder=digits", "--data.batch_size=4", ONE_STEP)
    run(*args)
    assert "mnist-amp: warning: class" not in capsys.readouterr().err
    shutil.move("digits/6", "six")
    assert refused(*args) == (
        f"mnist-amp: error: {RUN}/checkpoints/best.ckpt was trained on 10 classes, and the data have no images of 6. "
        "Add some; or train on yours beside the data set of the file, with --data.extra_folder instead of "
        "--data.folder.\n"
    )
    shutil.move("six", "digits/six")
    main(list(args))
    warning = f"class 7 of {RUN}/checkpoints/best.ckpt, 7, is class 6 of the data, so it is learned again.\n"
    assert f"mnist-amp: warning: {warning}" in capsys.readouterr().err


def validation_warning(split: str, version: int = 0) -> str:
    path = RUN.with_name(f"version_{version}") / "checkpoints" / "best.ckpt"
    return (
        f"mnist-amp: warning: {path} may have been trained on images that are validation images now, so their accuracy "
        f"may be too high. {split}\n"
    )


EARLIER = "Its run began with weights of another or an unknown split, or was resumed with another split."


@pytest.mark.parametrize(
    ("args", "split"),
    [
        ((), None),
        (("--data.val_size=4000",), None),  # a part of the same images
        (("--data.val_size=0", "--seed_everything=5"), None),
        (("--data.val_size=6000",), "--seed_everything 42 --data.val_size 5000"),
        (("--seed_everything=5",), "--seed_everything 42 --data.val_size 5000"),
        (("--data.seed=5",), "--data.seed 42 --data.val_size 5000"),
    ],
)
def test_validation_images_that_the_weights_have_seen(
    run: Run, fitted: Run, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], split: str | None
) -> None:
    """There is a warning, and the split that is given in it has none. The new run's images have no temperature."""
    fitted(*SMOKE)
    main([*FIT, "--weights=best", ONE_STEP, *args])
    expected = validation_warning(f"Give the split of its run: {split}.") if split else ""
    assert capsys.readouterr().err == expected
    main(["test", "--trainer.limit_test_batches=1"])
    assert capsys.readouterr().err == (validation_warning(f"{EARLIER} There is no temperature.", 1) if split else "")
    if split:
        main([*FIT, f"--weights={RUN}", ONE_STEP, *split.split()])
        assert capsys.readouterr().err == ""


def test_a_resumed_run_and_its_weights_have_seen_the_validation_images_too(
    run: Run, fitted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the last run of a chain are the same as those of the run before."""
    fitted(*SMOKE)
    run("fit", "--ckpt_path=last", "--seed_everything=5", "--trainer.max_epochs=2")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    capsys.readouterr()
    main([*FIT, "--weights=best", "--seed_everything=5", ONE_STEP])
    assert capsys.readouterr().err == validation_warning(EARLIER, 2)
    main(["validate"])
    assert capsys.readouterr().err == validation_warning(f"{EARLIER} There is no temperature.", 3)


def test_strict_without_weights(fitted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(*SMOKE)
    warning = "mnist-amp: warning: weights_strict has no effect: no weights are given.\n"
    main([*FIT, "--weights_strict=false", ONE_STEP])
    assert capsys.readouterr().err.count(warning) == 1
    main(["fit", f"--config={RUN}/config.yaml", ONE_STEP])
    assert warning not in capsys.readouterr().err


def test_a_requeued_job_resumes_and_reports_no_change(run: Run, fitted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command still names the weights, whose file may be gone."""
    fitted(*SMOKE)
    (RUN / "checkpoints" / "last.ckpt").rename("source.ckpt")
    for name, value in {"JOB_ID": "77", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    args = (*FIT, "--weights=source.ckpt", "--weights_strict=false", "--trainer.max_epochs=2")
    run(*args, "--trainer.max_epochs=1")
    Path("source.ckpt").unlink()
    (RUN.with_name("version_1") / "checkpoints" / "last.ckpt").rename("hpc_ckpt_1.ckpt")
    out = run(*args)
    assert "\ncheckpoint  hpc_ckpt_1.ckpt (1 epoch done, step 8)\n" in out
    assert "weights" not in out


# refusals


def of_other_program(metadata: Any) -> OrderedDict[str, Tensor]:
    weights = OrderedDict(network())
    weights._metadata = metadata  # type: ignore[attr-defined]
    return weights


@pytest.mark.parametrize("metadata", ["text", ["list"], {"mnist_amp": "text"}, {"mnist_amp": {"input": "text"}}])
def test_metadata_of_other_programs(fitted: Run, metadata: Any) -> None:
    fitted(*SMOKE)
    torch.save(of_other_program(metadata), "theirs.pth")
    assert flat(without_prefixes(checkpoint_files.read(Path("theirs.pth"))["state_dict"])) == flat(network())


@pytest.mark.parametrize("text", ["an image", "[1]", '{"range": 3}', "[" * 99_999])
def test_metadata_of_other_safetensors(fitted: Run, text: str) -> None:
    fitted(*SMOKE)
    safetensors.torch.save_file(network(), "theirs.safetensors", metadata={"input": text})
    assert flat(without_prefixes(checkpoint_files.read(Path("theirs.safetensors"))["state_dict"])) == flat(network())


LAYERS = {"fc1.weight": (16, 784), "fc1.bias": (16,), "fc2.weight": (10, 16), "fc2.bias": (10,)}


def listed(kind: str, width: int = 16) -> str:
    shapes = {name: tuple(width if size == 16 else size for size in shape) for name, shape in LAYERS.items()}
    return ", ".join(f"{name} ({' x '.join(map(str, shape))} {kind})" for name, shape in shapes.items())


def converted(convert: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor], Path], None]:
    return lambda weights, path: torch.save({name: convert(value) for name, value in weights.items()}, path)


def no_width(weights: dict[str, Tensor], path: Path) -> None:
    sizes = {name: [0 if size == 16 else size for size in value.shape] for name, value in weights.items()}
    torch.save({name: torch.zeros(size) for name, size in sizes.items()}, path)


NO_NETWORK = "w.pth does not hold the weights of a network. Its layers are"
NO_CHECKPOINT = "w.pth is not a training checkpoint."
PLACE = "A run keeps its checkpoints in its folder checkpoints/."
PART = "of its content holds weights: save this part in a file of its own, with torch.save."
BAD: dict[str, tuple[Callable[[dict[str, Tensor], Path], Any], str]] = {
    "sparse": (converted(Tensor.to_sparse), f"{NO_NETWORK} {listed('float32 sparse_coo')}."),
    "complex": (converted(lambda value: value.to(torch.complex64)), f"{NO_NETWORK} {listed('complex64')}."),
    "integers": (converted(Tensor.int), f"{NO_NETWORK} {listed('int32')}."),
    "no width": (no_width, f"{NO_NETWORK} {listed('float32', 0)}."),
    "scalars": (
        lambda weights, path: torch.save({f"a{i}": torch.zeros(1).int() for i in range(10)}, path),
        f"{NO_NETWORK} {', '.join(f'a{i} (1 int32)' for i in range(8))}, and 2 more.",
    ),
    "no layers": (lambda weights, path: safetensors.torch.save_file({}, path), f"{NO_NETWORK} missing."),
    "overflow": (
        converted(lambda value: value.double() + 1e300),
        f"w.pth has values in {', '.join(f'model.{name}' for name in LAYERS)} that are not finite in float32. "
        "Use other weights.",
    ),
    "loop": (
        lambda weights, path: torch.save({"epoch": 3, "model_state_dict": weights}, path),
        f"{NO_CHECKPOINT} The part 'model_state_dict' {PART}",
    ),
    "nothing": (lambda weights, path: torch.save({}, path), f"{NO_CHECKPOINT} {PLACE}"),
    "tensor": (lambda weights, path: torch.save(torch.zeros(3), path), f"{NO_CHECKPOINT} {PLACE}"),
    "old": (
        lambda weights, path: torch.save(weights, path, _use_new_zipfile_serialization=False),
        "w.pth has the format of torch before 1.6. Load it with torch, and save it again.",
    ),
    "text": (
        lambda weights, path: path.write_text("weights"),
        "w.pth (7 bytes) is not a checkpoint, or it is truncated or damaged.",
    ),
    "folder": (
        lambda weights, path: path.mkdir(),
        "there is no checkpoint at w.pth/checkpoints/best.ckpt. No run under lightning_logs has one.",
    ),
    "missing": (
        lambda weights, path: None,
        "there is no checkpoint at w.pth. No run under lightning_logs has one.",
    ),
}


@pytest.mark.parametrize("option", ["fit --weights", "test --ckpt_path", "export --ckpt_path"])
@pytest.mark.parametrize("kind", BAD)
def test_refused_files(refused: Refused, kind: str, option: str) -> None:
    save, message = BAD[kind]
    torch.manual_seed(0)
    save({name: torch.rand(shape) for name, shape in LAYERS.items()}, Path("w.pth"))
    before = files(Path())
    assert refused(*f"{option} w.pth".split()) == f"mnist-amp: error: {message}\n"
    assert files(Path()) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--weights="], "weights is empty; name a file, or leave it out. See mnist-amp fit --help."),
        (
            ["--weights=best"],
            "there is no run with a checkpoint under HERE/lightning_logs. Train one with `mnist-amp fit`, or name a "
            "checkpoint with --weights.",
        ),
    ],
)
def test_refused_names(refused: Refused, tmp_path: Path, args: list[str], message: str) -> None:
    assert refused(*FIT, *args) == f"mnist-amp: error: {message.replace('HERE', str(tmp_path))}\n"
    assert list(tmp_path.iterdir()) == []


# the other commands


@pytest.mark.parametrize("name", ["named.pth", "NAMED.SAFETENSORS"])
def test_the_content_decides_the_format(run: Run, fitted: Run, name: str) -> None:
    fitted(*SMOKE)
    safetensors.torch.save_file(network(), name)
    assert f"\ncheckpoint  {name} (weights alone)\n" in run(
        "test", f"--ckpt_path={name}", "--trainer.limit_test_batches=1"
    )


def test_all_kinds_give_the_predictions_of_the_checkpoint(
    run: Run, fitted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`predict --images` and `export` read each kind of file as they read the checkpoint.

    The temperature is left out: weights alone do not tell the images that it may be fitted on.
    """
    monkeypatch.setattr("mnist_amp.inference.out_of_distribution.fit_temperature", lambda *_: None)
    fitted(*SMOKE)
    save_all(Path())
    paths = [RUN, RUN / "model.pth", *KINDS]
    for number, path in enumerate(paths):
        run("predict", f"--images={ROOT}/docs/digits", f"--ckpt_path={path}")
        run("export", "--formats=[pth]", f"--ckpt_path={path}")
        logs = Path("lightning_logs")
        tables = [(logs / "predict" / f"version_{i}" / "predictions.csv").read_text() for i in (0, number)]
        assert tables[1] == tables[0]
        exported = [
            torch.load(logs / "export" / f"version_{i}" / "model-float32.pth", weights_only=True) for i in (0, number)
        ]
        assert flat(dict(exported[1])) == flat(dict(exported[0]))


def test_reports_never_replace_others(run: Run, fitted: Run) -> None:
    """Two files of one name lie in a folder that has a report of its own."""
    fitted(*SMOKE)
    weights = network()
    torch.save(weights, "net.pth")
    safetensors.torch.save_file({name: value * 2 for name, value in weights.items()}, "net.safetensors")
    for command, name in (("test", "metrics.json"), ("predict", "predictions.csv")):
        Path(f"{command}_net").mkdir()
        Path(f"{command}_net", name).write_text("mine")
        for path in ("net.pth", "net.safetensors", "net.pth"):
            run(command, f"--ckpt_path={path}")
        assert Path(f"{command}_net", name).read_text() == "mine"
        assert sorted(str(folder) for folder in Path().glob(f"{command}_net*")) == [
            f"{command}_net",
            f"{command}_net_2",
            f"{command}_net_3",
        ]
    checkpoints = [json.loads(Path(f"test_net_{i}/metrics.json").read_text())["checkpoint"] for i in (2, 3)]
    assert checkpoints == ["net.pth", "net.safetensors"]


def test_demo(run: Run, fitted: Run, tmp_path: Path) -> None:
    fitted(*SMOKE)
    with started("demo", "--port=0", f"--ckpt_path={RUN}/model.pth", cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert lines[0] == f"checkpoint  {RUN}/model.pth (weights alone)\n"
    assert re.match("device  ", lines[1])  # no accuracy, because the file has no history
