"""Settings in a checkpoint from a stranger can't run code, or choose where files are written."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_amp.errors import RequestError
from mnist_amp.module import LitClassifier
from mnist_amp.runs.checkpoint_contents import CONFIG_KEY
from mnist_amp.runs.trust import trusted_settings
from tests.conftest import Refused, Run

EVIL = "import pathlib\npathlib.Path('ran').touch()\nfrom lightning.pytorch import Callback as X\n"


def planted(checkpoint: dict[str, Any], **settings: Any) -> Path:
    """Write a checkpoint with other settings of the Trainer, and a module that leaves a file if it is imported."""
    config = yaml.safe_load(checkpoint[CONFIG_KEY])
    config["trainer"].update(settings)
    torch.save({**checkpoint, CONFIG_KEY: yaml.safe_dump(config)}, "it.ckpt")
    Path("evil.py").write_text(EVIL)
    return Path("it.ckpt")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("")  # the folder that the command is run in
    monkeypatch.delitem(sys.modules, "evil", raising=False)


@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_class_named_in_a_checkpoint_is_not_imported(
    checkpoint: dict[str, Any], run: Run, refused: Refused, subcommand: str
) -> None:
    path = planted(checkpoint, plugins={"class_path": "evil.X"})
    before = set(Path().rglob("*"))
    assert refused(subcommand, f"--ckpt_path={path}") == (
        "mnist-amp: error: it.ckpt has evil.X as trainer.plugins. This is not taken from a checkpoint, because it could "
        "run code or write files anywhere. If you trust it, repeat it with --trainer.plugins; null leaves it out.\n"
    )
    assert set(Path().rglob("*")) == before
    run("test", f"--ckpt_path={path}", "--trainer.plugins=null", "--trainer.limit_test_batches=2")
    assert not Path("ran").exists()


def test_overridden_settings_are_trusted(checkpoint: dict[str, Any], run: Run) -> None:
    path = planted(checkpoint, callbacks=[{"class_path": "evil.X"}])
    run("fit", f"--ckpt_path={path}", "--trainer.max_epochs=2", "--trainer.callbacks=evil.X")
    assert Path("ran").exists()


LOGGERS = "lightning.pytorch.loggers"


def logger(kind: str = "CSVLogger", **settings: Any) -> dict[str, Any]:
    return {"class_path": f"{LOGGERS}.{kind}", "init_args": settings}


FLOAT32_LAYERS = "mnist_amp.training.float32_layers.Float32Layers"


def float32_layers(*layers: Any, **more: Any) -> dict[str, Any]:
    return {"class_path": FLOAT32_LAYERS, "init_args": {"layers": list(layers), **more}}


LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"


@pytest.mark.parametrize(
    ("option", "value", "unsafe"),
    [
        ("trainer.callbacks", [{"class_path": "evil.X"}], "evil.X"),
        ("trainer.callbacks", "evil.X", "evil.X"),
        ("trainer.callbacks", {"class_path": LAMBDA, "init_args": {"on_fit_start": "exec"}}, LAMBDA),
        ("trainer.callbacks", {"class_path": "LambdaCallback"}, "LambdaCallback"),
        ("trainer.callbacks", {"class_path": f"{LAMBDA}.mro"}, f"{LAMBDA}.mro"),
        ("trainer.callbacks.class_path", "LambdaCallback", "trainer.callbacks.class_path LambdaCallback"),
        ("trainer.callbacks+", "X", "callbacks+ X"),
        (
            "trainer.callbacks",
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "x"}},
            "dirpath x",
        ),
        (
            "trainer.callbacks",
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "../x"}},
            "../x",
        ),
        ("trainer.plugins", float32_layers("model.fc2", "../x"), "model.fc2"),
        ("trainer.plugins", float32_layers("model.fc2", scaler={"class_path": "evil.X"}), "evil.X"),
        ("trainer.plugins", float32_layers({"class_path": "evil.X"}), "evil.X"),
        (
            "trainer.plugins",
            {"class_path": "mnist_amp.training.float32_layers.X"},
            FLOAT32_LAYERS.replace("Float32Layers", "X"),
        ),
        ("trainer.logger", {"class_path": f"{LOGGERS}.CometLogger"}, f"{LOGGERS}.CometLogger"),
        ("trainer.logger", logger("MLFlowLogger", tracking_uri="http://evil"), "tracking_uri http://evil"),
        ("trainer.logger", logger("MLFlowLogger", artifact_location="evil"), "artifact_location evil"),
        ("trainer.logger", logger("WandbLogger", entity="evil"), "entity evil"),
        ("trainer.logger", logger("WandbLogger", dir="/tmp"), "dir /tmp"),
        ("trainer.logger", {**logger("WandbLogger"), "dict_kwargs": {"entity": "evil"}}, "entity evil"),
        ("trainer.logger", [{"class_path": f"{LOGGERS}.csv_logs.CSVLogger"}], f"{LOGGERS}.csv_logs.CSVLogger"),
        ("trainer.logger", [logger(save_dir="logs"), {"class_path": "evil.X"}], "evil.X"),
        ("trainer.logger", "WandbLogger", "WandbLogger"),
        ("trainer.logger", {"init_args": {}}, "{'init_args': {}}"),
        *(
            ("trainer.logger", logger(**{key: folder}), f"{key} {folder}")
            for key in ("save_dir", "name", "sub_dir")
            for folder in ("/tmp", "../logs", "logs/..", "a/../../b", "~/logs", "$HOME", "s3:/x", "memory://x", "a\nb")
        ),
        ("trainer.logger", logger(save_dir="logs", prefix="/x"), "/x"),
        ("trainer.logger", {**logger(), "dict_kwargs": {"filename_suffix": "../x"}}, "../x"),
        ("optimizer", {"class_path": "torch.optim.SGD", "init_args": {"lr": "builtins.exec"}}, "builtins.exec"),
        ("optimizer", {"class_path": "torch.optim.adam.torch.load"}, "torch.optim.adam.torch.load"),
        ("lr_scheduler", {"class_path": "os.system"}, "os.system"),
        ("data.batch_size", "a/b", "a/b"),
    ],
)
def test_unsafe_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: Any, unsafe: str
) -> None:
    monkeypatch.chdir(tmp_path)
    group, dot, key = option.partition(".")
    config = {group: {key: value}} if dot else {group: value}
    unsafe = unsafe.removeprefix("trainer.") if option.count(".") == 2 else unsafe
    with pytest.raises(RequestError) as error:
        trusted_settings(Path("it.ckpt"), config, is_given=lambda name: False)
    assert str(error.value) == (
        f"it.ckpt has {unsafe} as {option}. This is not taken from a checkpoint, because it could run code or write "
        f"files anywhere. If you trust it, repeat it with --{option}; null leaves it out."
    )
    assert trusted_settings(Path("it.ckpt"), config, is_given=lambda name: name == option) == (
        {group: {}} if dot else {}
    )


def test_safe_settings_are_inherited() -> None:
    scaler = {"class_path": "torch.amp.GradScaler", "init_args": {"device": "cpu"}}
    plugin = {"class_path": "lightning.pytorch.plugins.MixedPrecision", "init_args": {"scaler": scaler}}
    stopping = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss"}}
    config = {
        "trainer": {
            "plugins": [plugin, float32_layers("model.blocks.0.fc2", scaler=scaler)],
            "callbacks": [stopping],
            "logger": False,
            "strategy": "ddp",
            "max_epochs": 3,
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"betas": (0.9, 0.999), "fused": None}},
        "lr_scheduler": {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss"}},
        "data": {"data_dir": "/somewhere/else", "seed": 3},
        "seed_everything": 42,
    }
    assert trusted_settings(Path("it.ckpt"), config, is_given=lambda name: False) == config


@pytest.mark.parametrize("folder", ["logs", "my logs/a.b", ".", "./a", "", Path("logs")])
def test_loggers_below_the_current_folder_are_inherited_with_a_new_version(folder: str) -> None:
    both = [logger(save_dir=folder, name="x", version=3), logger("TensorBoardLogger", save_dir=folder, sub_dir="a/b")]
    config = {"trainer": {"logger": both}}
    kept = trusted_settings(Path("it.ckpt"), config, is_given=lambda name: False)
    assert kept == {
        "trainer": {"logger": [logger(save_dir=folder, name="x", version=None), both[1]]},
    }
    for one in (None, True, False, both[1]):
        alone: dict[str, Any] = {"trainer": {"logger": one}}
        assert trusted_settings(Path("it.ckpt"), alone, is_given=lambda name: False) == alone


def test_trackers_are_inherited_if_the_environment_names_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    mlflow = logger("MLFlowLogger", experiment_name="x", tracking_uri="http://127.0.0.1:1", run_id="a", tags={"b": "c"})
    wandb = logger("WandbLogger", project="x", offline=True, save_dir="logs", id="a", version=None, entity=None)
    config = {"trainer": {"logger": [mlflow, wandb]}}
    kept = trusted_settings(Path("it.ckpt"), config, is_given=lambda name: False)["trainer"]["logger"]
    assert [each["init_args"] for each in kept] == [
        mlflow["init_args"] | {"run_id": None},
        wandb["init_args"] | {"id": None},
    ]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(RequestError, match="has tracking_uri http://127"):
        trusted_settings(Path("it.ckpt"), config, is_given=lambda name: False)


@pytest.mark.parametrize(
    ("settings", "folder", "versions"),
    [
        ({"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}, "logs/lightning_logs", (0, 1)),
        (
            {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "logs", "name": "mine", "version": 5}},
            "logs/mine",
            (5, 6),
        ),
    ],
)
def test_a_resumed_run_logs_with_the_same_loggers(
    run: Run, settings: dict[str, Any], folder: str, versions: tuple[int, int]
) -> None:
    csv = {"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "csv", "version": 0}}
    Path("a.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [settings, csv]}}))
    fitted = run("fit", "--config=smoke.yaml", "--config=a.yaml")
    metrics = Path("csv/version_0/metrics.csv").read_text()
    resumed = run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert Path("csv/version_0/metrics.csv").read_text() == metrics
    assert Path("csv/version_1/metrics.csv").read_text().startswith(metrics)  # and so has the whole history
    for number, printed in enumerate((fitted, resumed)):
        where = f"{folder}/version_{versions[number]}/ ({settings['class_path']})"
        assert f"\nlogs      {where}, ./csv/version_{number}/ (CSVLogger)\n" in printed
    assert "\nchanged" not in resumed


def test_a_checkpoint_does_not_choose_where_to_write(checkpoint: dict[str, Any], run: Run) -> None:
    path = planted(checkpoint, default_root_dir="elsewhere")
    run("fit", f"--ckpt_path={path}", "--trainer.max_epochs=2")
    assert not Path("elsewhere").exists()
    assert Path("lightning_logs/version_0").is_dir()


def test_load_from_checkpoint_refuses_unsafe_settings(checkpoint: dict[str, Any]) -> None:
    checkpoint["hyper_parameters"]["optimizer"] = {"class_path": "evil.X"}
    path = planted(checkpoint)
    with pytest.raises(RequestError, match=r"^it.ckpt has evil.X as optimizer\. This is not taken from a checkpoint"):
        LitClassifier.load_from_checkpoint(path)
    assert LitClassifier.load_from_checkpoint(path, optimizer=None).hparams["optimizer"] is None
    assert not Path("ran").exists()


NETWORK = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(784, 10)\n"


def planted_network(checkpoint: dict[str, Any], where: Path, **network: Any) -> Path:
    """Write a checkpoint with another network, which its configuration names as well."""
    config = yaml.safe_load(checkpoint[CONFIG_KEY]) | {"network": network}
    hyper_parameters = {**checkpoint["hyper_parameters"], "network": network}
    where.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**checkpoint, "hyper_parameters": hyper_parameters, CONFIG_KEY: yaml.safe_dump(config)}, where)
    return where


@pytest.mark.parametrize(
    ("network", "unsafe"),
    [
        ({"class_path": "os.system", "init_args": {"command": "touch ran"}}, "os.system"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": "touch"}}, "subprocess.Popen"),
        ({"class_path": "builtins.exec"}, "builtins.exec"),
        ({"class_path": "torch.load", "init_args": {"f": "ran"}}, "torch.load"),
        ({"class_path": "torch.hub.load"}, "torch.hub.load"),
        ({"class_path": "torch.nn.init.ones_"}, "torch.nn.init.ones_"),
        ({"class_path": "torch.optim.Adam"}, "torch.optim.Adam"),
        ({"class_path": "torchvision.models.get_model"}, "torchvision.models.get_model"),
        ({"class_path": "torchvision.models._api.get_model"}, "torchvision.models._api.get_model"),
        ({"class_path": "torch.nn.Module.mro"}, "torch.nn.Module.mro"),
        ({"class_path": "mnist_amp.__main__.main"}, "mnist_amp.__main__.main"),
        ({"class_path": "evil.X"}, "evil.X"),
        ({"class_path": "evil.Missing"}, "evil.Missing"),
        ({"class_path": "evil"}, None),
        (
            {"class_path": "torch.nn.Sequential", "init_args": {"a": {"class_path": "evil.X"}}},
            "evil.X",
        ),
        ({"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": "../x"}}, "../x"),
    ],
)
@pytest.mark.parametrize("command", ["test", "export", "fit", "--weights"])
def test_a_network_in_a_checkpoint_is_never_anything_else(
    checkpoint: dict[str, Any], refused: Refused, network: dict[str, Any], unsafe: str | None, command: str
) -> None:
    """The module `evil` lies beside the checkpoint, which may have brought it along, so it is not imported either."""
    Path("evil.py").write_text(EVIL)
    path = planted_network(checkpoint, Path("it.ckpt"), **network)
    found = refused(*(("fit", f"--weights={path}") if command == "--weights" else (command, f"--ckpt_path={path}")))
    name = network["class_path"]
    parameters = "" if unsafe == name else ", with all of its parameters"
    if unsafe is not None:
        assert found == (
            f"mnist-amp: error: it.ckpt has {unsafe} as network. This is not taken from a checkpoint, because it could "
            f"run code or write files anywhere. If you trust it, repeat it: --network {name}{parameters}.\n"
        )
    assert not Path("ran").exists()
    assert not Path("lightning_logs").exists()


def test_a_network_of_the_current_folder_is_found_again(checkpoint: dict[str, Any], refused: Refused) -> None:
    """The weights differ, so the command gets as far as this."""
    Path("own_network.py").write_text(NETWORK)
    path = planted_network(checkpoint, Path("runs/version_0/checkpoints/it.ckpt"), class_path="own_network.Net")
    assert " does not take images of 1 x 28 x 28: " in refused("test", f"--ckpt_path={path}")


def test_a_network_of_the_folder_of_the_run_is_not_imported(checkpoint: dict[str, Any], refused: Refused) -> None:
    """Not even if the folder is on the path."""
    path = planted_network(checkpoint, Path("checkpoints/it.ckpt"), class_path="evil.X")
    Path("evil.py").write_text(EVIL)
    assert "has evil.X as network. This is not taken" in refused("test", f"--ckpt_path={path}")
    assert not Path("ran").exists()


@pytest.mark.parametrize("dataset", ["os.system", "torch.nn.Linear", "evil.X", "torch.utils.data.Dataset.mro"])
def test_a_data_set_in_a_checkpoint_is_never_anything_else(
    checkpoint: dict[str, Any], refused: Refused, dataset: str
) -> None:
    Path("evil.py").write_text(EVIL)
    config = yaml.safe_load(checkpoint[CONFIG_KEY])
    config["data"]["dataset"] = dataset
    torch.save({**checkpoint, CONFIG_KEY: yaml.safe_dump(config)}, "it.ckpt")
    assert refused("test", "--ckpt_path=it.ckpt") == (
        f"mnist-amp: error: it.ckpt has {dataset} as data.dataset. This is not taken from a checkpoint, because it "
        f"could run code or write files anywhere. If you trust it, repeat it: --data.dataset {dataset}.\n"
    )
    assert not Path("ran").exists()


POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "touch ran", "shell": True}}
LAYERS = """
from torch import nn
class Net(nn.Module):
    def __init__(self, act=nn.ReLU, other=None, num_classes=10):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
    def forward(self, images):
        return self.net(images)
"""


@pytest.mark.parametrize("argument", [POPEN, {"class_path": "exec"}, "os.getcwd", ["os.getcwd"], {"x": {"y": POPEN}}])
def test_naming_the_network_again_trusts_its_class_and_not_its_arguments(
    checkpoint: dict[str, Any], refused: Refused, argument: Any
) -> None:
    Path("layers.py").write_text(LAYERS)
    Path("evil.py").write_text(EVIL)
    network = {"class_path": "layers.Net", "init_args": {"other": argument}}
    path = planted_network(checkpoint, Path("run/checkpoints/it.ckpt"), **network)
    assert " as network. This is not taken from a checkpoint" in refused("test", f"--ckpt_path={path}")
    assert "holds another network" in refused("test", f"--ckpt_path={path}", "--network=layers.Net")
    assert not Path("ran").exists()


def test_a_layer_among_the_arguments_is_safe(run: Run) -> None:
    Path("layers.py").write_text(LAYERS)
    run("fit", "--config=smoke.yaml", "--network=layers.Net", "--network.act=torch.nn.GELU")
    run("test", "--trainer.limit_test_batches=1")


def test_a_program_is_not_run_to_look_for_a_network(checkpoint: dict[str, Any], refused: Refused) -> None:
    """It lies in the current folder, but has no such class."""
    Path("evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\nX = 1\n")
    path = planted_network(checkpoint, Path("run/checkpoints/it.ckpt"), class_path="evil.X")
    assert "has evil.X as network. This is not taken" in refused("test", f"--ckpt_path={path}")
    assert not Path("ran").exists()


def test_a_data_set_is_the_class_that_was_trusted(checkpoint: dict[str, Any], refused: Refused) -> None:
    """Not a module of the same name beside the checkpoint."""
    Path("folder.py").write_text(EVIL.replace("import Callback as X", "import Callback as ImageFolder"))
    config = yaml.safe_load(checkpoint[CONFIG_KEY])
    config["data"]["dataset"] = "torchvision.datasets.folder.ImageFolder"
    torch.save({**checkpoint, CONFIG_KEY: yaml.safe_dump(config)}, "it.ckpt")
    refused("test", "--ckpt_path=it.ckpt")
    assert not Path("ran").exists()
