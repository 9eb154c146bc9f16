"""`--data.extra_folder`: images of the user's own beside a data set."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from mnist_amp.__main__ import main
from mnist_amp.data import ClassificationDataModule, datamodule
from mnist_amp.data.class_folders import folder_names
from mnist_amp.data.decoding import SUFFIXES
from mnist_amp.data.extra_folder import ExtraFolder
from mnist_amp.data.image_folder import list_extra
from mnist_amp.data.image_set import ImageSet
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
    message = (
        f"{digits / '3' / 'photo.png'} has 60 x 80 pixels, but the images of the data set have 28 x 28. Bring yours "
        "into this form with mnist-amp predict --images and --save_images"
    )
    assert refusal(digits) == f"{message}."
    with pytest.raises(RequestError) as error:
        ExtraFolder(digits, tuple("0123456789"), (3, 28, 28), resize=False)
    assert str(error.value) == f"{message}, or resize all of them with --data.image_size."
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


def test_the_folders_have_the_names_that_save_images_writes(tmp_path: Path) -> None:
    classes = ("a", "N/A", "cat", "Cat", ".net")
    for name in folder_names(classes):
        write_image(tmp_path / name / "a.png")
    assert {sample.path.parent.name: sample.label for sample in list_extra(tmp_path, classes)} == {
        **{"a": 0, "N-A": 1, "cat (2)": 2, "Cat (3)": 3, "-net": 4},
    }
    write_image(tmp_path / "Cat" / "a.png")
    assert [sample.label for sample in list_extra(tmp_path, classes)].count(3) == 2
    (tmp_path / "dog").mkdir()
    with pytest.raises(RequestError) as error:
        list_extra(tmp_path, classes)
    assert str(error.value) == (
        f"{tmp_path / 'dog'} is none of the classes of the data set: a, N-A, cat (2), Cat (3), -net. Rename the "
        "folder, or move it away."
    )


@pytest.mark.parametrize(
    ("paper", "others", "dark"), [((255, 0, 0), 0, 1), ((0, 0, 0), 0, 0), ((255, 255, 255), 255, 0)]
)
def test_dark_ink_beside_light_ink_is_reported(
    tmp_path: Path, paper: tuple[int, ...], others: int, dark: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not if the data set has such images as well."""
    for index, level in enumerate(paper):
        write_ink(tmp_path / "mine" / "1" / f"{index}.png", paper=level)
    images = torch.full((4, 1, 28, 28), others, dtype=torch.uint8)
    images[:, :, 9:12, 9:20] = 255 - others
    extra = ExtraFolder(tmp_path / "mine", tuple("0123456789"), (1, 28, 28), resize=True)
    assert extra.append_to(ImageSet(images, torch.zeros(4, dtype=torch.int64))).labels.tolist() == [0] * 4 + [1] * 3
    warning = (
        f"mnist-amp: warning: {dark} of 3 images of {tmp_path / 'mine'} are dark on a light background, but those of "
        "the data set are light on a dark one. Bring your images into that form with mnist-amp predict --images and "
        "--save_images.\n"
    )
    assert capsys.readouterr().err == (warning if dark else "")


def write_ink(path: Path, paper: int) -> None:
    """Write an image of 56 x 56 pixels with a stroke."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (56, 56), paper)
    image.paste(255 - paper, (20, 10, 28, 46))
    image.save(path)


def test_the_memory_for_both_is_checked(digits: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    monkeypatch.setattr(datamodule, "check_memory", lambda number, *_: checked.append(number))
    for stage in ("fit", "validate", "test"):
        attached(data_dir, stage, extra_folder=str(digits))
    attached(data_dir, "fit")
    assert checked == [2 * 60_000 + 2 * 3, 60_000, 10_000, 60_000]


def test_a_run_learns_them_beside_the_data_set(
    run: Run, fitted: Run, refused: Refused, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The banner names them. The other commands do not need them."""
    fitted("--config=configs/smoke.yaml")
    out = run("fit", "--config=configs/smoke.yaml", "--weights=best", "--data.extra_folder=digits")
    assert "\ndata       MNIST and 3 images of digits, images of 1 x 28 x 28 in 10 classes\n" in out
    (digits / "3" / "a.png").unlink()
    run("validate")
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    warning = "mnist-amp: warning: digits has 2 images, and had 3: the run is not continued exactly.\n"
    assert warning in capsys.readouterr().err
    digits.rename("moved")
    Image.new("L", (28, 28)).save("a.png")
    for command in (["validate"], ["test"], ["predict", "--images=a.png"]):
        assert " images of digits" not in run(*command)
    message = refused("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert message.startswith("mnist-amp: error: digits can't be read: ")
