"""`--data.extra_folder`: images of the user's own beside a data set."""

from pathlib import Path

import pytest
import torch

from mnist_amp.__main__ import main
from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.decoding import SUFFIXES
from mnist_amp.data.image_folder import list_extra
from mnist_amp.errors import RequestError
from tests.conftest import Refused, Run
from tests.data.image_files import write_image
from tests.data.test_datamodule import attached


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Return a folder with two images of a 7 and one of a 3, and a folder without images."""
    for name, value in {"7/b.png": 9, "7/a.png": 8, "3/a.png": 7}.items():
        write_image(tmp_path / "digits" / name, value, (28, 28))
    (tmp_path / "digits" / "6").mkdir()
    return tmp_path / "digits"


def refusal(folder: Path) -> str:
    with pytest.raises(RequestError) as error:
        ClassificationDataModule(extra_folder=str(folder))
    return str(error.value)


def test_they_come_after_the_data_set_and_are_a_tenth_of_an_epoch(digits: Path, data_dir: Path) -> None:
    plain, data = attached(data_dir, "fit"), attached(data_dir, "fit", extra_folder=str(digits))
    assert (data.classes, data.train_size, data.extra_size) == (plain.classes, 60_000, 3)
    assert torch.equal(data.images[:60_000], plain.images)
    assert data.images[60_000:, 0, 0, 0].tolist() == [7, 8, 9]
    assert data.labels[60_000:].tolist() == [3, 7, 7]
    (trained, held_out), (trained_before, held_out_before) = data.split(), plain.split()
    assert torch.equal(held_out, held_out_before)
    assert torch.equal(trained[:55_000], trained_before)
    assert trained[55_000:].bincount().nonzero().flatten().tolist() == [60_000, 60_001, 60_002]
    assert trained[55_000:].bincount()[60_000:].tolist() == [2037, 2037, 2037]
    assert len(data.train_dataloader()) == -(-(55_000 + 3 * 2037) // 64)


def test_the_test_images_are_those_of_the_data_set(digits: Path, data_dir: Path) -> None:
    assert len(attached(data_dir, "test", extra_folder=str(digits)).labels) == 10_000


def test_many_images_are_not_repeated(tmp_path: Path) -> None:
    for folder, count in {"photos": 24, "extra": 5}.items():
        for number in range(count):
            write_image(tmp_path / folder / f"{'ab'[number % 2]}" / f"{number}.png", number)
    data = ClassificationDataModule(
        folder=str(tmp_path / "photos"), extra_folder=str(tmp_path / "extra"), batch_size=4, val_size=2
    )
    assert (data.train_size, data.extra_size) == (22, 5)
    assert [part.tolist()[-5:] for part in data.split()] == [[22, 23, 24, 25, 26], data.split()[1].tolist()]
    assert len(data.split()[0]) == 25


def test_other_sizes_are_resized_only_if_a_size_is_given(digits: Path) -> None:
    write_image(digits / "3" / "photo.png", 1, (60, 80))
    assert refusal(digits) == (
        f"{digits / '3' / 'photo.png'} has 60 x 80 pixels, but the images of the data set have 28 x 28. Bring yours "
        "into this form with mnist-amp predict --images and --save_images, or resize all of them with "
        "--data.image_size."
    )
    data = ClassificationDataModule(extra_folder=str(digits), image_size=28)
    assert data.extra is not None
    assert data.extra.append_to(data.source.load(train=False)).images.shape == (10_004, 1, 28, 28)


def test_folders_that_can_not_be_used(digits: Path, tmp_path: Path) -> None:
    (digits / "seven").mkdir()
    assert refusal(digits) == (
        f"{digits / 'seven'} is none of the classes of the data set: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. Rename the folder, "
        "or move it away."
    )
    (tmp_path / "none").mkdir()
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'} has no images by class. Put them into folders that are named by their classes, such as "
        f"{tmp_path / 'none' / '0' / 'a.png'} ({', '.join(SUFFIXES)})."
    )
    message = refusal(tmp_path / "missing")
    assert message.startswith(f"{tmp_path / 'missing'} can't be read: ")
    assert message.endswith(
        "Name the folder of your images with --data.extra_folder, or leave them out with --data.extra_folder null."
    )


def test_a_slash_in_the_name_of_a_class(tmp_path: Path) -> None:
    write_image(tmp_path / "N-A" / "a.png")
    assert [sample.label for sample in list_extra(tmp_path, ("a", "N/A"))] == [1]


def test_a_run_learns_them_beside_the_data_set(
    run: Run, fitted: Run, refused: Refused, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The banner names them. The other commands need the folder, but not the same images."""
    fitted("--config=configs/smoke.yaml")
    out = run("fit", "--config=configs/smoke.yaml", "--weights=best", "--data.extra_folder=digits")
    assert "\ndata       MNIST and 3 images of digits, images of 1 x 28 x 28 in 10 classes\n" in out
    (digits / "3" / "a.png").unlink()
    run("validate")
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    warning = "mnist-amp: warning: digits has 2 images, and had 3: the run is not continued exactly.\n"
    assert warning in capsys.readouterr().err
    digits.rename("moved")
    assert refused("test").startswith("mnist-amp: error: digits can't be read: ")
    assert run("test", "--data.extra_folder=null")
