"""`mnist-amp export`: each file, loaded by its own runtime, computes what the checkpoint computes."""

import json
import re
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from mnist_amp import __version__
from mnist_amp.data import ClassificationDataModule, mnist
from mnist_amp.data.normalization import TO_UNIT, Normalization
from mnist_amp.inference import export, export_checks, export_formats, file_content, pixel_network
from mnist_amp.module import LitClassifier
from mnist_amp.networks.simple_nn import SimpleNN
from mnist_amp.runs import atomic_files
from tests import conftest
from tests.conftest import Refused, Run, simple_nn

CHECKPOINT = "lightning_logs/version_0/checkpoints/best.ckpt"
FOLDER = Path("lightning_logs/export/version_0")
DTYPES = ("float32", "float16", "bfloat16")
FORMATS = ("pth", "safetensors", "onnx", "pt2")
INT8_FILE = "model-int8.onnx"
FILES = [*(f"model-{dtype}.{name}" for dtype in DTYPES for name in FORMATS), INT8_FILE]
ALL_DTYPES = f"--dtypes=[{','.join(DTYPES)},int8]"
QUICK = "--formats=[pth,pt2]"


class GuidesNN(nn.Module):
    """The class of the guide, for normalised images, at a width of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 16)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        return self.fc2(self.relu(self.fc1(x.view(-1, 784))))


pytestmark = pytest.mark.xdist_group("export")  # all files are exported once, because it takes long


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which a run and its export are kept for all tests."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def trained(run: Run, made: Path) -> None:
    """Put a run of a small network into this directory."""
    if not (made / CHECKPOINT).exists():
        run("fit", "--config=smoke.yaml", "--network.hidden_dim=16")
        shutil.copytree("lightning_logs", made / "lightning_logs")
    elif not Path("lightning_logs").exists():
        shutil.copytree(made / "lightning_logs" / "version_0", "lightning_logs/version_0")


@pytest.fixture
def exported(run: Run, made: Path, trained: None) -> str:
    """Put its export, in all formats and dtypes, into this directory; returns the printed text."""
    if not (made / FOLDER).exists():
        (made / "printed").write_text(run("export", ALL_DTYPES))
        shutil.copytree(FOLDER, made / FOLDER)
    elif not FOLDER.exists():
        shutil.copytree(made / FOLDER, FOLDER)
    return (made / "printed").read_text()


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "results.json").read_text())
    return found


def export_files() -> set[str]:
    """Return the files of all exports."""
    return conftest.files(Path("lightning_logs/export"))


def failed(run: Run, capsys: pytest.CaptureFixture[str], *args: str, status: int = 1) -> str:
    with pytest.raises(SystemExit) as exit_info:
        run("export", *args)
    assert exit_info.value.code == status
    return capsys.readouterr().err


def guide(weights: dict[str, Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    model = GuidesNN().to(dtype)
    assert str(model.load_state_dict(weights)) == "<All keys matched successfully>"
    assert {weight.dtype for weight in weights.values()} == {dtype}
    return lambda images: model(images.float().div(255).sub(0.5).div(0.5).to(dtype)).float()


def onnx_scorer(path: Path) -> Callable[[Tensor], Tensor]:
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def loaded(path: Path, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Load a file by its own runtime, without this project's code."""
    if path.suffix == ".pth":
        return guide(torch.load(path, weights_only=True), dtype)
    if path.suffix == ".safetensors":
        return guide(safetensors.torch.load_file(path), dtype)
    return onnx_scorer(path) if path.suffix == ".onnx" else torch.export.load(path).module()


@torch.no_grad()
def test_every_file_agrees_with_the_checkpoint_on_all_test_images(exported: str, data_dir: Path) -> None:
    """Compare the logits of the runtimes, in batches of several sizes, with the checkpoint and with results.json."""
    model = LitClassifier.load_from_checkpoint(CHECKPOINT).model
    images, labels = mnist.load(data_dir, train=False)
    images = images.unsqueeze(1)
    sizes = [1, 7, *[1000] * 9, 992]  # the command's own: a CPU may round batches of other sizes otherwise
    wanted = torch.cat([model(TO_UNIT(part)) for part in torch.split(images, sizes)])
    guesses, largest = wanted.argmax(dim=1), wanted.abs().max().item()
    for record in results()["files"][:-1]:
        dtype = getattr(torch, record["dtype"])
        score = loaded(FOLDER / record["file"], dtype)
        logits = torch.cat([score(part) for part in torch.split(images, sizes)])
        assert (logits.dtype, logits.shape) == (torch.float32, (10_000, 10))
        differ = logits.argmax(dim=1) != guesses
        difference = (logits - wanted).abs().max().item()
        allowed = 2**0.5 * export_checks.EPSILONS[dtype] * torch.finfo(dtype).eps * largest
        assert difference <= allowed == pytest.approx(record["allowed_difference"]), record["file"]
        assert difference == pytest.approx(record["largest_difference"], rel=0.1), record["file"]
        margins = wanted.max(dim=1).values - wanted.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
        assert margins.max() <= 2 * difference, record["file"]  # guesses differ only where the checkpoint is unsure
        assert differ.sum().item() == record["differing_guesses"] <= (0 if dtype == torch.float32 else 100)
        right = (logits.argmax(dim=1) == labels).sum().item()
        assert record["accuracy"] == {"correct": right, "images": 10_000}, record["file"]


@torch.no_grad()
def test_the_int8_file_predicts_what_the_results_tell(exported: str, data_dir: Path) -> None:
    """Load it without this project's code, and compare its guesses with the checkpoint's."""
    record = results()["files"][-1]
    images, labels = mnist.load(data_dir, train=False)
    images = images.unsqueeze(1)
    logits = loaded(FOLDER / INT8_FILE, torch.int8)(images)
    wanted = LitClassifier.load_from_checkpoint(CHECKPOINT).model(TO_UNIT(images))
    right, guesses = (logits.argmax(dim=1) == labels).sum().item(), wanted.argmax(dim=1)
    assert record["accuracy"] == {"correct": right, "images": 10_000}
    assert record["differing_guesses"] == (logits.argmax(dim=1) != guesses).sum().item() <= 200
    assert (guesses == labels).sum().item() - right <= 100
    assert record["largest_difference"] == pytest.approx((logits - wanted).abs().max().item(), rel=0.1)
    assert (record["allowed_difference"], record["allowed_guesses"]) == (None, 200)


def test_the_int8_file_has_integer_weights_and_tells_its_calibration(exported: str) -> None:
    model = onnx.load(FOLDER / INT8_FILE)
    weights = {each.name: each for each in model.graph.initializer}
    matrices = [onnx.numpy_helper.to_array(weights[f"model.fc{layer}.weight_quantized"]) for layer in (1, 2)]
    assert [matrix.dtype.name for matrix in matrices] == ["int8", "int8"]
    assert max(abs(matrix.astype(int)).max() for matrix in matrices) == 64  # 7 bits
    assert [len(weights[f"model.fc{layer}.weight_scale"].dims) for layer in (1, 2)] == [1, 1]  # a range per channel
    record = results()["files"][-1]
    assert record["calibration"] == {"images": 500, "seed": 0}
    assert (record["dtype"], record["arithmetic"], record["input"]["dtype"]) == ("int8", "int8", "uint8")
    assert record["bytes"] < results()["files"][2]["bytes"] * 0.4  # of float32


def test_the_files_the_results_and_the_printed_table(exported: str) -> None:
    assert conftest.files(FOLDER) == {*FILES, "results.json"}
    record = results()
    assert list(record) == ["command", "date", "device", "versions", "run", "accuracy", "largest_logit", "files"]
    assert set(record["files"][0]) == {
        *("file", "bytes", "accuracy", "differing_guesses", "largest_difference", "allowed_difference", "classes"),
        *("input", "output", "dtype", "arithmetic", "run", "versions", "date", "allowed_guesses"),
        *("network", "image_shape", "normalization", "single_seconds", "bulk_seconds", "bulk_images"),
    }
    assert [set(file) - set(record["files"][0]) for file in record["files"]] == [
        *[set(), set(), {"onnx"}, set()] * 3,
        {"onnx", "calibration"},
    ]
    assert [file["file"] for file in record["files"]] == FILES
    assert [file["bytes"] for file in record["files"]] == [(FOLDER / name).stat().st_size for name in FILES]
    assert record["command"].startswith("mnist-amp export --data.data_dir=")
    assert record["run"] == {
        **{
            "checkpoint": CHECKPOINT,
            "epochs": 1,
            "step": 8,
            "averaged": False,
            "precision": "bf16-mixed",
        },
    }
    lines = exported.splitlines()
    assert lines[0].split("  ")[0] == "file"
    assert [line.split()[:4] for line in lines[1:14]] == [
        [
            *(file["file"], f"{file['bytes']:,}", file["arithmetic"]),
            f"{file['accuracy']['correct'] / 10_000:.2%}",
        ]
        for file in record["files"]
    ]
    assert [line.split()[4:6] for line in lines[1:14]] == [
        [str(file["differing_guesses"]), f"{file['largest_difference']:.2g}"] for file in record["files"]
    ]
    assert lines[13].split()[6:8] == ["200", "guesses"]
    assert [line.split()[-2:] for line in lines[1:14]] == [
        [f"{file['single_seconds'] * 1000:.3f}", f"{file['bulk_seconds'] * 1000:.1f}"] for file in record["files"]
    ]
    assert {file["bulk_images"] for file in record["files"]} == {1000}
    assert lines[14] == ""
    assert lines[15].startswith(f"checkpoint   {CHECKPOINT} (1 epoch, step 8), ")
    assert lines[16:] == [
        f"files        {FOLDER}/ (results.json has all results)",
        f'pth          model.load_state_dict(torch.load("{FOLDER}/model-float32.pth", weights_only=True))',
        f'safetensors  model.load_state_dict(safetensors.torch.load_file("{FOLDER}/model-float32.safetensors"))',
        f'onnx         onnxruntime.InferenceSession("{FOLDER}/model-float32.onnx")'
        '.run(["logits"], {"images": images})',
        f'pt2          torch.export.load("{FOLDER}/model-float32.pt2").module()(images)',
    ]


def test_printed_lines_are_python(exported: str, data_dir: Path) -> None:
    model, images = SimpleNN(16), mnist.load(data_dir, train=False)[0][:3].unsqueeze(1)
    known = {"torch": torch, "safetensors": safetensors, "onnxruntime": onnxruntime, "model": model}
    for line in exported.splitlines()[-4:]:
        code = line.split(maxsplit=1)[1]
        eval(code, known | {"images": images.numpy() if "onnx" in code else images})


def embedded(path: Path) -> dict[str, Any]:
    """Return the metadata in a file."""
    if path.suffix == ".pth":
        return dict(torch.load(path, weights_only=True)._metadata["mnist_amp"])
    if path.suffix == ".pt2":
        extra = {"mnist_amp": ""}
        torch.export.load(path, extra_files=extra)
        return dict(json.loads(extra["mnist_amp"]))
    if path.suffix == ".onnx":
        texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    else:
        with safetensors.safe_open(path, "pt") as file:
            texts = file.metadata()
        assert texts.pop("format") == "pt"
    return {key: text if key in ("dtype", "arithmetic", "date") else json.loads(text) for key, text in texts.items()}


def test_metadata(exported: str) -> None:
    for record in results()["files"]:
        found = embedded(FOLDER / record["file"])
        assert found == {key: record[key] for key in found}, record["file"]
        assert set(found) == {
            *("network", "classes", "image_shape", "normalization", "input", "output", "dtype", "arithmetic", "run"),
            *("versions", "date", "accuracy", *(["calibration"] if record["dtype"] == "int8" else [])),
        }
    weights, graph = embedded(FOLDER / "model-float16.pth"), embedded(FOLDER / "model-float16.onnx")
    assert graph["classes"] == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert graph["network"] == simple_nn(16)
    assert graph["image_shape"] == [1, 28, 28]
    assert graph["normalization"] == {"mean": 0.5, "std": 0.5}
    assert graph["input"] == {
        **{"name": "images", "shape": ["N", 1, 28, 28], "dtype": "uint8", "range": [0, 255]},
        "meaning": "pixels; the file normalises them",
    }
    assert weights["input"] == {
        **{"name": "images", "shape": ["N", 1, 28, 28], "dtype": "float16", "range": None},
        "meaning": "pixels divided by 255, less the mean, and divided by the std of the normalization",
    }
    assert (graph["output"]["shape"], graph["output"]["dtype"]) == (["N", 10], "float32")
    assert weights["output"] == graph["output"] | {"dtype": "float16"}
    assert graph["run"]["checkpoint"] == CHECKPOINT
    assert (graph["versions"]["mnist-amp"], graph["versions"]["torch"]) == (
        __version__,
        torch.__version__.partition("+")[0],
    )
    assert graph["versions"]["onnxruntime"] == onnxruntime.__version__
    assert "onnxruntime" not in weights["versions"]


def test_onnx_has_a_dynamic_batch_and_weights_of_its_dtype(exported: str) -> None:
    kinds = {
        "float32": onnx.TensorProto.FLOAT,
        "float16": onnx.TensorProto.FLOAT16,
        "bfloat16": onnx.TensorProto.BFLOAT16,
    }
    for dtype, kind in kinds.items():
        model = onnx.load(FOLDER / f"model-{dtype}.onnx")
        versions = (8, 15) if dtype == "bfloat16" else (7, 14)
        assert (model.ir_version, *((each.domain, each.version) for each in model.opset_import)) == (
            versions[0],
            ("", versions[1]),
        )
        graph = model.graph
        weights = {weight.name: weight.data_type for weight in graph.initializer if weight.name.startswith("model.")}
        assert weights == {f"model.{name}": kind for name in SimpleNN(16).state_dict()}
        dims = graph.input[0].type.tensor_type.shape.dim
        assert graph.input[0].name == "images"
        assert (dims[0].dim_param, [dim.dim_value for dim in dims[1:]]) == ("batch", [1, 28, 28])
        assert (graph.output[0].name, graph.output[0].type.tensor_type.shape.dim[0].dim_param) == ("logits", "batch")
    arithmetic = {file["file"]: file["arithmetic"] for file in results()["files"]}
    assert [arithmetic[f"model-bfloat16.{name}"] for name in FORMATS] == ["bfloat16", "bfloat16", "float32", "bfloat16"]


def test_half_precision_halves_the_size(exported: str) -> None:
    sizes = {name: (FOLDER / name).stat().st_size for name in FILES}
    for dtype in ("float16", "bfloat16"):
        for name in FORMATS:
            saved = sizes[f"model-float32.{name}"] - sizes[f"model-{dtype}.{name}"]
            assert saved == pytest.approx(2 * (784 * 16 + 16 + 16 * 10 + 10), abs=2500)


def test_no_file_names_a_folder_of_this_machine(exported: str) -> None:
    here = str(Path(export.__file__).parent).encode()
    for name in FILES:
        assert here not in (FOLDER / name).read_bytes()
    with zipfile.ZipFile(FOLDER / "model-float32.pt2") as archive:
        assert all(here not in archive.read(name) for name in archive.namelist())


def test_a_program_can_go_to_another_device(exported: str) -> None:
    program = torch.export.load(FOLDER / "model-float16.pt2").module().to("meta")
    assert program(torch.zeros(5, 1, 28, 28, dtype=torch.uint8, device="meta")).shape == (5, 10)


def test_a_file_that_does_not_normalise_is_not_kept(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Forgetful(pixel_network.PixelNetwork):
        def __init__(self, model: nn.Module, normalization: Normalization, dtype: torch.dtype) -> None:
            super().__init__(model, Normalization(0.0, 1.0), dtype)

    monkeypatch.setattr(export, "PixelNetwork", Forgetful)
    message = failed(run, capsys, "--formats=[onnx,pt2]", "--dtypes=[bfloat16]")
    assert (
        "mnist-amp: error: 2 files could not be exported, or did not agree with the checkpoint on the test images. "
        in message
    )
    assert message.count(" guesses differ, and a logit differs by ") == 2
    assert message.endswith(" No file passed, so none is kept. Leave out what fails with --formats or --dtypes.\n")
    assert export_files() == set()
    assert list(Path("lightning_logs/export").iterdir()) == []


def test_a_wrong_weight_is_not_exported(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In float32 the files are found in which one bias is wrong by a hundredth."""

    class Perturbed(pixel_network.PixelNetwork):
        def __init__(self, model: nn.Module, normalization: Normalization, dtype: torch.dtype) -> None:
            super().__init__(model, normalization, dtype)
            self.model.get_parameter("fc2.bias")[0] += 0.01

    monkeypatch.setattr(export, "PixelNetwork", Perturbed)
    assert failed(run, capsys, "--formats=[pth,safetensors,onnx,pt2]").count(" and a logit differs by ") == 4
    assert export_files() == set()


MINE = """
import torch
from torch import Tensor, nn

class Mine(nn.Module):
    def __init__(self, width: int = 8, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.convolution(images)).relu().mean(dim=(2, 3))
        return self.classifier(self.dropout(features))
"""


@torch.no_grad()
def test_a_network_of_the_users_with_batch_normalisation(
    run: Run, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running statistics are in every file, and dropout is off."""
    Path("nets_of_mine.py").write_text(MINE)
    run("fit", "--config=smoke.yaml", "--network=nets_of_mine.Mine", "--network.width=12", "--data.mean=0.13")
    run("export", ALL_DTYPES)
    assert conftest.files(FOLDER) == {*FILES, "results.json"}
    *records, integers = results()["files"]
    init = {"class_path": "nets_of_mine.Mine", "init_args": {"width": 12}}
    assert [record["network"] for record in (*records, integers)] == [init] * 13
    assert integers["onnx"] == records[2]["onnx"]
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(FOLDER / INT8_FILE).graph.node}  # folded
    trained = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    assert trained["model.norm.num_batches_tracked"] == 8
    for dtype in DTYPES:
        for weights in (
            dict(torch.load(FOLDER / f"model-{dtype}.pth", weights_only=True)),
            safetensors.torch.load_file(FOLDER / f"model-{dtype}.safetensors"),
        ):
            assert set(weights) == {name.removeprefix("model.") for name in trained}
            for name, value in weights.items():
                assert torch.equal(value, trained[f"model.{name}"].to(value.dtype)), name
    monkeypatch.syspath_prepend(tmp_path)
    module = LitClassifier.load_from_checkpoint(CHECKPOINT).eval()
    images = mnist.load(data_dir, train=False)[0][:50].unsqueeze(1)
    wanted = module(Normalization(0.13, 0.5)(images))
    for record in records:
        if Path(record["file"]).suffix in (".onnx", ".pt2"):
            logits = loaded(FOLDER / record["file"], getattr(torch, record["dtype"]))(images)
            assert (logits - wanted).abs().max() <= record["allowed_difference"], record["file"]


def test_a_file_that_fails_is_not_kept_but_the_others_are(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swapped(network: pixel_network.PixelNetwork, example: Tensor) -> file_content.Maker:
        weight = network.model.get_parameter("fc2.weight")
        weight.copy_(weight[[1, 0, *range(2, 10)]])
        return export_formats._pth_maker(network, example)

    monkeypatch.setitem(export_formats.FORMATS, "pth", export_formats.FORMATS["pth"]._replace(maker=swapped))
    with pytest.raises(SystemExit) as exit_info:
        run("export", QUICK)
    assert exit_info.value.code == 1
    printed = capsys.readouterr()
    assert "mnist-amp: error: 1 file could not be exported, or did not agree " in printed.err
    assert " model-float32.pth: " in printed.err
    assert f". 1 file passed, kept in {FOLDER}. Leave out" in printed.err
    assert conftest.files(FOLDER) == {"model-float32.pt2", "results.json"}
    assert printed.out.splitlines()[1].startswith("model-float32.pt2  ")


def test_int8_is_written_as_onnx_only_and_a_wrong_file_is_not_kept(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calibrated with black images, the ranges cut everything else."""
    monkeypatch.setattr(export, "_calibration_images", lambda source: torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    message = failed(run, capsys, "--formats=[pth,onnx]", "--dtypes=[float32,int8]")
    assert message.startswith(f"mnist-amp: exporting {CHECKPOINT} to 3 files (int8 as onnx only)\n")
    assert " model-int8.onnx: " in message
    assert "; int8 may change 200 guesses, and lose 100 correct ones. 2 files passed, kept in " in message
    assert export_files() == {
        f"version_0/{name}" for name in ("model-float32.pth", "model-float32.onnx", "results.json")
    }


def test_the_calibration_images_are_of_the_training_images_and_chosen_by_a_seed(data_dir: Path) -> None:
    source = ClassificationDataModule(str(data_dir)).source
    source.prepare()
    first, second = export._calibration_images(source), export._calibration_images(source)
    assert (first.shape, first.dtype) == ((500, 1, 28, 28), torch.uint8)
    assert torch.equal(first, second)
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:500]
    assert torch.equal(first, mnist.load(data_dir, train=True)[0][order].unsqueeze(1))


def test_a_file_for_a_single_batch_size_fails(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_formats, "trace", lambda network, example: torch.export.export(network, (example,)))
    assert " model-float32.pt2: " in failed(run, capsys, "--formats=[pt2]")
    assert export_files() == set()


def test_a_file_that_can_not_be_loaded_fails(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = export_formats.FORMATS["pth"]._replace(maker=lambda network, example: lambda metadata: b"PK")
    monkeypatch.setitem(export_formats.FORMATS, "pth", torn)
    assert " model-float32.pth: " in failed(run, capsys, "--formats=[pth]")
    assert export_files() == set()


def test_a_full_disk_leaves_nothing(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files, "_flush", full)
    message = failed(run, capsys, QUICK)
    assert f"mnist-amp: error: {FOLDER}/model-float32.pth can't be written: No space left on device (" in message
    assert export_files() == set()
    assert list(Path("lightning_logs/export").iterdir()) == []


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (0, "stopped by SIGINT after no file passed, so none is kept."),
        (1, f"stopped by SIGINT after 1 file passed, kept in {FOLDER}."),
    ],
)
def test_ctrl_c(
    run: Run,
    trained: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    done: int,
    message: str,
) -> None:
    kept = ["pth", "safetensors"][done]

    def interrupted(path: Path) -> file_content.Scorer:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setitem(export_formats.FORMATS, kept, export_formats.FORMATS[kept]._replace(scorer=interrupted))
    assert failed(run, capsys, "--formats=[pth,safetensors]", status=130).endswith(f"\nmnist-amp: {message}\n")
    assert conftest.files(Path("lightning_logs/export")) == (
        {"version_0/model-float32.pth", "version_0/results.json"} if done else set()
    )


def test_formats_without_their_packages_are_left_out(
    run: Run, trained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("safetensors", "onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    capsys.readouterr()
    export.run(["export"])
    assert capsys.readouterr().err == (
        "mnist-amp: warning: safetensors, onnx left out: safetensors needs safetensors (not installed) and onnx needs "
        "onnx, onnxruntime (not installed). Install the extra export: pip install 'mnist-amp[export]'\n"
        f"mnist-amp: exporting {CHECKPOINT} to 2 files\n"
    )
    assert conftest.files(FOLDER) == {"model-float32.pth", "model-float32.pt2", "results.json"}


@pytest.mark.parametrize(("asked", "rest"), [("onnx,pth", "pth"), ("onnx", "pth,pt2")])
def test_a_requested_format_without_its_packages_is_refused(
    refused: Refused, trained: None, monkeypatch: pytest.MonkeyPatch, asked: str, rest: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert refused("export", f"--formats=[{asked}]") == (
        "mnist-amp: error: onnx needs onnxruntime (not installed). Install the extra export, pip install "
        f"'mnist-amp[export]', or leave it out: --formats '[{rest}]'\n"
    )
    assert export_files() == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--formats=[pth,onix]",), "formats has onix (did you mean onnx?); it takes pth, safetensors, onnx, pt2."),
        (
            ("--dtypes=[float64]",),
            "dtypes has float64 (did you mean float16?); it takes float32, float16, bfloat16, int8.",
        ),
        (
            ("--dtypes=[float32,int8]", "--formats=[pth,pt2]"),
            "int8 is a dtype of onnx only. Add onnx to formats, or leave int8 out of dtypes.",
        ),
        (("--formats=[]",), "formats needs at least one name, and each name once. Leave it out to have its default."),
        (
            ("--dtypes=[float16,float16]",),
            "dtypes needs at least one name, and each name once. Leave it out to have its default.",
        ),
        (("--formats=onnx",), "formats can't be onnx; it takes a list, as in '[A,B]'. See mnist-amp export --help."),
        (("--format=[onnx]",), "there is no option format (did you mean formats?). See mnist-amp export --help."),
        (
            ("--network.hidden_dim=32",),
            f"{CHECKPOINT} holds another network (checkpoint -> now): network.hidden_dim 16 -> 32. Leave "
            "network.hidden_dim out, or start without this checkpoint.",
        ),
        (
            ("--ckpt_path=none.ckpt",),
            f"there is no checkpoint at none.ckpt. There are {CHECKPOINT}, {CHECKPOINT.replace('best', 'last')}.",
        ),
    ],
)
def test_wrong_options_are_refused(refused: Refused, trained: None, arguments: tuple[str, ...], message: str) -> None:
    assert refused("export", *arguments) == f"mnist-amp: error: {message}\n"
    assert export_files() == set()


def test_refused_without_a_run(refused: Refused, tmp_path: Path) -> None:
    assert refused("export") == (
        f"mnist-amp: error: there is no run with a checkpoint under {tmp_path / 'lightning_logs'}. "
        "Train one with `mnist-amp fit`, or name a checkpoint with --ckpt_path.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint(refused: Refused, trained: None) -> None:
    content = Path(CHECKPOINT).read_bytes()
    Path("damaged.ckpt").write_bytes(content[: len(content) // 2])
    message = refused("export", "--ckpt_path=damaged.ckpt")
    assert message.startswith(f"mnist-amp: error: damaged.ckpt ({len(content) // 2:,} bytes) is not a checkpoint, ")
    assert export_files() == set()


def test_a_checkpoint_of_another_network(refused: Refused, trained: None) -> None:
    content = torch.load(CHECKPOINT, weights_only=True)
    content["state_dict"]["model.fc2.bias"] = torch.zeros(9)
    torch.save(content, "other.ckpt")
    assert refused("export", "--ckpt_path=other.ckpt") == (
        "mnist-amp: error: other.ckpt holds another network. These weights differ in name or shape: model.fc2.bias. "
        "This network has model.fc1.weight, model.fc1.bias, model.fc2.weight, model.fc2.bias. Name the "
        "network of the file with --network; if it is this one, its code has changed.\n"
    )


def test_a_root_that_can_not_be_written(refused: Refused, trained: None) -> None:
    Path("lightning_logs/export").write_text("in the way")
    assert refused("export", QUICK).endswith(
        "mnist-amp: error: no run can be written to lightning_logs/export: Not a directory. "
        "Name a writable folder with --trainer.default_root_dir.\n"
    )


def test_another_root_a_wide_network_and_real_fp16(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    products, compute = [], export_checks.compute_logits

    def compute_and_note(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        products.append(torch.get_float32_matmul_precision())
        return compute(network, images)

    monkeypatch.setattr(export, "compute_logits", compute_and_note)
    run(
        *("fit", "--config=fp16-cpu.yaml", "--config=smoke.yaml", "--network.hidden_dim=256"),
        *("--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1", "--matmul_precision=medium"),
        "--trainer.default_root_dir=here",
    )
    printed = run("export", "--dtypes=[float32,float16]", "--formats=[pth]", "--trainer.default_root_dir=here")
    assert f"\nfiles       here/{FOLDER}/ (results.json has all results)\n" in printed
    record = json.loads((Path("here") / FOLDER / "results.json").read_text())
    assert record["run"] == {
        "checkpoint": f"here/{CHECKPOINT}",
        **{"epochs": 1, "step": 3, "averaged": False, "precision": "16-mixed"},
    }
    assert set(products) == {"highest"}
    again = run("export", "--formats=[pth]", f"--ckpt_path=here/{CHECKPOINT}")
    assert again.splitlines()[0].startswith("file ")
    assert conftest.files(FOLDER) == {"model-float32.pth", "results.json"}


def test_help(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("export", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: mnist-amp export [options] Write a run's network to files for other programs")
    assert "Checkpoint to use: `best` or `last` of the newest run" in text
    assert "--formats+ FORMATS kinds of files, of pth, safetensors, onnx and pt2; by default" in text
    assert "--dtypes+ DTYPES of the weights, of float32, float16, bfloat16 and int8 (onnx only); by default" in text
    assert "verbose" not in text


def test_the_snippets_of_the_documentation(exported: str, data_dir: Path) -> None:
    images, labels = mnist.load(data_dir, train=False)
    text = (conftest.ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    correct = []
    for block in blocks[:4]:
        names: dict[str, Any] = {"images": images.unsqueeze(1).numpy()}
        exec(compile(block, "export.md", "exec"), names)
        correct.append(int((torch.as_tensor(names["guesses"]) == labels).sum()))
    assert correct == [file["accuracy"]["correct"] for file in results()["files"][:4]]
    names = {}
    exec(compile(blocks[4], "export.md", "exec"), names)
    assert names["in_pth"] == names["in_pt2"] | {
        "input": names["in_pth"]["input"],
        "output": names["in_pth"]["output"],
    } | {key: names["in_pth"][key] for key in ("date", "versions")}
    assert json.loads(names["in_onnx"]["accuracy"]) == names["in_pt2"]["accuracy"]
    assert names["in_safetensors"]["dtype"] == "float32"
