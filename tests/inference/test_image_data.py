"""The user's image files as a LightningDataModule."""

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image

from mnist_amp.data.normalization import TO_UNIT, Normalization
from mnist_amp.inference.image_data import ImageDataModule
from mnist_amp.module import LitClassifier
from tests.conftest import simple_nn


def predict(data: ImageDataModule) -> tuple[LitClassifier, torch.Tensor]:
    """Return a module, and the probabilities (N, 10) that it predicts with a plain Trainer."""
    torch.manual_seed(0)
    network = simple_nn(16) if data.image_shape == (1, 28, 28) else {"class_path": "CNN"}
    module = LitClassifier(network, image_shape=data.image_shape)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    batches = trainer.predict(module, datamodule=data)
    assert batches is not None
    return module, torch.cat([batch for batch in batches if isinstance(batch, torch.Tensor)])


def test_a_plain_trainer_predicts_every_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    data = ImageDataModule([str(tmp_path)], preprocess="none", batch_size=2)
    module, probabilities = predict(data)
    np.testing.assert_array_equal(data.images, pixels[:, None])
    torch.testing.assert_close(probabilities, module.model(TO_UNIT(data.images)).softmax(dim=1))


def test_an_empty_image_is_not_unreadable(tmp_path: Path) -> None:
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    (tmp_path / "torn.png").write_bytes(b"torn")
    data = ImageDataModule([str(tmp_path)], preprocess="mnist", batch_size=2)
    predict(data)
    assert [image.error is not None for image in data.loaded] == [True, True]
    assert [image.path for image in data.unreadable()] == [tmp_path / "torn.png"]
    assert data.images.sum() == 0


def test_images_in_colour_have_the_shape_and_the_normalisation_of_the_network(tmp_path: Path) -> None:
    red = np.zeros((20, 40, 3), dtype=np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    (tmp_path / "torn.png").write_bytes(b"torn")
    normalization = Normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    data = ImageDataModule([str(tmp_path)], "resize", 2, (3, 16, 24), normalization)
    module, probabilities = predict(data)
    assert data.images.shape == (2, 3, 16, 24)
    assert torch.equal(data.images[0], torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 16, 24))
    assert [image.pixels.shape for image in data.loaded] == [(3, 16, 24), (3, 16, 24)]
    torch.testing.assert_close(probabilities, module.eval()(normalization(data.images)).softmax(dim=1))
