from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.loader import SequentialLoader
from mnist_amp.errors import RequestError


def attached(data_dir: Path, stage: str, **settings: Any) -> ClassificationDataModule:
    data = ClassificationDataModule(str(data_dir), **settings)
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.prepare_data()
    data.setup(stage)
    return data


def test_defaults_are_the_guides() -> None:
    assert dict(ClassificationDataModule().hparams) == {
        **{"data_dir": "data", "dataset": "MNIST", "dataset_args": None, "folder": None, "extra_folder": None},
        **{"image_size": None, "channels": None, "mean": 0.5, "std": 0.5},
        **{"batch_size": 64, "val_size": 5000, "seed": 0},
        **{"classes": list("0123456789"), "train_size": 60_000, "extra_size": 0, "test_seed": None},
    }


def test_seed_is_that_of_seed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert ClassificationDataModule().seed == ClassificationDataModule().hparams["seed"] == 7
    assert ClassificationDataModule(seed=3).seed == 3


def test_holds_out_validation_images_by_seed() -> None:
    train, val = ClassificationDataModule(seed=1).split()
    assert (len(train), len(val)) == (55_000, 5_000)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(60_000))
    assert torch.equal(val, ClassificationDataModule(seed=1).split()[1])
    assert not torch.equal(val, ClassificationDataModule(seed=2).split()[1])


def test_loaders(data_dir: Path) -> None:
    data = attached(data_dir, "fit")
    val = data.val_dataloader()
    assert isinstance(val, SequentialLoader)
    assert (len(data.train_dataloader()), len(val)) == (860, 79)
    test = attached(data_dir, "test", batch_size=63)
    assert len(test.test_dataloader()) == len(test.predict_dataloader()) == 159


def test_trains_on_all_images_without_validation(data_dir: Path) -> None:
    data = attached(data_dir, "fit", val_size=0)
    assert len(data.train_dataloader()) == 938
    assert data.val_dataloader() == []


def test_normalises_after_the_transfer(data_dir: Path) -> None:
    data = attached(data_dir, "fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.images.shape == (64, 1, 28, 28)
    assert (batch.images.min().item(), batch.images.max().item()) == (-1, 1)
    assert batch.images.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0; it must be at least 1."),
        (
            {"val_size": 60_000},
            "data.val_size is 60000; it must be at least 0 and leave some of the 60,000 images to train on.",
        ),
        (
            {"val_size": -1},
            "data.val_size is -1; it must be at least 0 and leave some of the 60,000 images to train on.",
        ),
    ],
)
def test_refuses_sizes_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        ClassificationDataModule(**settings)
    assert str(error.value) == message
