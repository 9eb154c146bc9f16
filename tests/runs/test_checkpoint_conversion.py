"""Checkpoints and settings of version 0.1, which knew SimpleNN and MNIST alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_amp.runs import checkpoint_files
from mnist_amp.runs.checkpoint_contents import CONFIG_KEY
from tests.conftest import Refused, Run, simple_nn
from tests.runs.test_resume import flat

SMOKE = ("--config=smoke.yaml", "--network.hidden_dim=16", "--data.val_size=5000")


def of_version_0_1(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint in the form of version 0.1."""
    old = dict(checkpoint)
    saved = dict(old["hyper_parameters"])
    network = saved.pop("network")
    del saved["num_classes"], saved["image_shape"]
    old["hyper_parameters"] = {"hidden_dim": network["init_args"]["hidden_dim"], **saved}
    kept = ("data_dir", "batch_size", "val_size", "seed")
    old["datamodule_hyper_parameters"] = {key: old["datamodule_hyper_parameters"][key] for key in kept}
    config = yaml.safe_load(old[CONFIG_KEY])
    config["model"] |= config.pop("network")["init_args"]
    config["data"] = {key: config["data"][key] for key in kept}
    old[CONFIG_KEY] = yaml.safe_dump(config)
    if "ClassificationDataModule" in old:
        old["MNISTDataModule"] = old.pop("ClassificationDataModule")
    return old


@pytest.fixture
def old(run: Run) -> Path:
    run("fit", *SMOKE)
    path = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    content = of_version_0_1(torch.load(path, weights_only=True))
    assert "network" not in content["hyper_parameters"]
    path.unlink()  # it may be a link
    torch.save(content, path)
    return path


def test_a_run_is_resumed_as_if_it_were_new(old: Path, run: Run) -> None:
    run("fit", *SMOKE, "--trainer.max_epochs=2")
    printed = run("fit", f"--ckpt_path={old}", "--trainer.max_epochs=2")
    assert "\nchanged" not in printed
    contents = [checkpoint_files.read(Path(f"lightning_logs/version_{n}/checkpoints/last.ckpt")) for n in (1, 2)]
    for key in ("state_dict", "optimizer_states", "global_step", "train_means", "hyper_parameters"):
        assert flat(contents[0][key]) == flat(contents[1][key]), key
    assert contents[1]["hyper_parameters"]["network"] == simple_nn(16)


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_it_is_evaluated(old: Path, run: Run, command: str) -> None:
    assert "SimpleNN (hidden_dim 16), 12,730 parameters" in run(command, f"--ckpt_path={old}")


def test_another_network_is_refused(old: Path, refused: Refused) -> None:
    assert refused("test", f"--ckpt_path={old}", "--network=CNN") == (
        f"mnist-amp: error: {old} holds another network (checkpoint -> now): network SimpleNN -> CNN. Leave network "
        "out, or start without this checkpoint.\n"
    )


def test_a_config_file_names_what_to_change(refused: Refused) -> None:
    Path("old.yaml").write_text("model: {hidden_dim: 16}\n")
    assert refused("fit", "--config=old.yaml") == (
        "mnist-amp: error: model.hidden_dim is now network.hidden_dim. It is set by old.yaml. See mnist-amp fit "
        "--help.\n"
    )
    assert refused("fit", "--model.hidden_dim=16") == (
        "mnist-amp: error: model.hidden_dim is now network.hidden_dim. See mnist-amp fit --help.\n"
    )
