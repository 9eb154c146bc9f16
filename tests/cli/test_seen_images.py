"""Images that are held out now, and that the weights may have been trained on."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_amp.__main__ import main
from mnist_amp.data import ClassificationDataModule
from mnist_amp.data.image_folder import list_images
from mnist_amp.runs.resume import Seen, seen_images
from tests.conftest import Refused, Run
from tests.data.image_files import write_image

FIT = ("fit", "--config=configs/smoke.yaml", "--data.batch_size=8", "--data.folder=own", "--data.val_size=100")
FIRST = "lightning_logs/version_0/checkpoints/best.ckpt"
EARLIER = "Its run began with weights of another or an unknown split, or was resumed with another split."


def warning(path: str, kinds: str, reason: str, kind: str = "warning") -> str:
    return (
        f"mnist-amp: {kind}: {path} may have been trained on images that are {kinds} images now, so their accuracy may "
        f"be too high. {reason}\n"
    )


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with 60 images and without a folder `test`, below the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, number in itertools.product("abc", range(20)):
        write_image(tmp_path / "own" / name / f"{number}.png", 10 * number)
    return tmp_path / "own"


def data_of(folder: str = "own", **settings: Any) -> ClassificationDataModule:
    return ClassificationDataModule(folder=folder, image_size=4, channels=1, batch_size=4, **settings)


def seen(before: ClassificationDataModule, now: ClassificationDataModule, option: str = "data.seed") -> Seen | None:
    return seen_images(Path(FIRST), before.hparams, now.hparams, option)


def reason(before: ClassificationDataModule, now: ClassificationDataModule) -> str:
    found = seen(before, now)
    assert found is not None
    return found.message.partition("too high. ")[2]


def images(data: ClassificationDataModule, folder: Path) -> tuple[set[Path], set[Path], set[Path]]:
    """Return the files that are trained on, validated on and tested on."""
    listing = list_images(folder, data.source.seed)  # type: ignore[attr-defined]
    train, val = ({listing.train[i].path for i in part.tolist()} for part in data.split())
    return train, val, {sample.path for sample in listing.test}


Options = tuple[int, int | None, int]


def of_options(options: Options, monkeypatch: pytest.MonkeyPatch) -> ClassificationDataModule:
    """Return the data of seed_everything, data.seed and data.val_size."""
    monkeypatch.setenv("PL_GLOBAL_SEED", str(options[0]))
    return data_of(seed=options[1], val_size=options[2])


def test_each_split_after_each_other(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are compared, and the advice is followed."""
    every: list[Options] = list(itertools.product((5, 9), (None, 5, 9), (0, 3, 6)))
    datas = {options: of_options(options, monkeypatch) for options in every}
    sets = {options: images(data, own) for options, data in datas.items()}
    advised = 0
    for before, now in itertools.product(every, every):
        trained, (_, val, test) = sets[before][0], sets[now]
        found = seen(datas[before], datas[now], "seed_everything" if now[1] is None else "data.seed")
        assert (found is not None) == bool(trained & (val | test))
        if found is None:
            continue
        assert found.test == bool(trained & test)
        assert ("validation" in found.message) == bool(trained & val)
        words = found.message.partition("Give the split of its run: ")[2].removesuffix(".").split()
        assert bool(words) == (not (now[2] > before[2] == 0))
        if words:
            given = dict(zip(words[::2], words[1::2], strict=True))
            seed = given.get("--data.seed", str(now[1]))
            options = (
                int(given.get("--seed_everything", now[0])),
                None if seed in ("None", "null") else int(seed),
                int(given.get("--data.val_size", now[2])),
            )
            _, val, test = images(of_options(options, monkeypatch), own)
            assert not trained & (val | test)
            advised += 1
    assert advised > 100


@pytest.mark.parametrize("folder", ["own/", "./own", "HERE/own", "link"])
def test_another_spelling_of_the_folder(own: Path, folder: str) -> None:
    Path("link").symlink_to(own)
    assert seen(data_of(val_size=4, seed=1), data_of(folder.replace("HERE", str(own.parent)), val_size=4, seed=2))


def test_a_copy_of_the_folder_is_other_data(own: Path) -> None:
    shutil.copytree(own, "copy")
    assert seen(data_of(val_size=4, seed=1), data_of("copy", val_size=4, seed=2)) is None


@pytest.mark.parametrize("names", [("KMNIST", "torchvision.datasets.KMNIST"), ("MNIST", "torchvision.datasets.MNIST")])
def test_another_spelling_of_the_data_set(own: Path, names: tuple[str, str]) -> None:
    saved = {"val_size": 4, "seed": 1, "dataset": names[0]}
    now = dict(data_of(val_size=4, seed=2).hparams) | {"folder": None, "test_seed": None}
    assert seen_images(Path(FIRST), saved, now | {"dataset": names[1]}, "data.seed") is not None
    assert seen_images(Path(FIRST), saved, now | {"dataset": "QMNIST"}, "data.seed") is None


def test_a_folder_that_has_got_more_images(own: Path) -> None:
    before = data_of(val_size=4)
    write_image(own / "a" / "more.png")
    now = data_of(val_size=4)
    assert reason(before, now) == "The data have 55 training images, and had 54."
    found = seen(before, now)
    assert found is not None
    assert found.test  # one of more images may be a training image of before


def test_test_images_of_their_own_folder_depend_on_no_seed(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(own, "train")
    shutil.copytree("train", "own/test")
    shutil.move("train", "own/train")
    before, now = (of_options(options, monkeypatch) for options in ((1, 5, 4), (5, None, 4)))
    assert seen(before, now) is None
    found = seen(before, of_options((9, None, 4), monkeypatch))
    assert found is not None
    assert not found.test


def test_a_run_on_all_images(own: Path) -> None:
    assert reason(data_of(val_size=0), data_of(val_size=4)) == "Its run held out no validation images."


def test_other_arguments_of_the_data_set(own: Path) -> None:
    now = dict(data_of(val_size=4).hparams)
    found = seen_images(Path(FIRST), now | {"dataset_args": {"fold": 1}}, now, "data.seed")
    assert found is not None
    assert found.message.endswith("too high. Its run had other data.dataset_args.")


def test_the_extra_folder_of_before(own: Path) -> None:
    """None of its images were held out."""
    before = ClassificationDataModule(seed=0)
    before.hparams["extra_folder"] = str(own)
    assert reason(before, data_of(val_size=4, seed=0)) == (
        "Its run trained on all images of this folder, with --data.extra_folder."
    )


def test_an_earlier_run_had_another_split(own: Path) -> None:
    before = data_of(val_size=4)
    before.mark_as_seen(test=False)
    found = seen(before, data_of(val_size=4))
    assert found == Seen("an earlier run", False, warning(FIRST, "validation", EARLIER).partition("warning: ")[2][:-1])
    before.mark_as_seen(test=True)
    found = seen(before, data_of(val_size=0))
    assert found == Seen("an earlier run", True, warning(FIRST, "test", EARLIER).partition("warning: ")[2][:-1])


def test_an_old_checkpoint_has_no_seed_of_the_test_images(own: Path) -> None:
    before, now = data_of(val_size=4, seed=1), data_of(val_size=4, seed=2)
    del before.hparams["test_seed"]
    assert reason(before, now) == "Give the split of its run: --data.seed 1 --data.val_size 4."
    assert seen(before, data_of(val_size=4, seed=1)) is None


# the commands


@pytest.fixture
def many(own: Path) -> Path:
    """Return the folder with 300 images: a temperature needs 100 that are held out."""
    for name, number in itertools.product("abc", range(20, 100)):
        write_image(own / name / f"{number}.png", number)
    return own


def check_no_temperature(run: Run) -> None:
    """The last checkpoint of the second run has none in `test` and `predict`."""
    run("test", "--ckpt_path=last")
    metrics = json.loads(Path("lightning_logs/version_1/test_last/metrics.json").read_text())
    assert (metrics["temperature"], metrics["images"]) == (None, 30)
    reason = "none (the network may have been trained on the validation images)"
    assert f"\ntemperature  {reason}\n" in run("predict", "--ckpt_path=last")


def test_weights_of_another_draw_of_the_test_images(many: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """`data.seed` also draws the test images, and `seed_everything` does not."""
    run(*FIT, "--data.seed=5")
    assert "(of probabilities, fitted on validation images)" in run("predict")
    main([*FIT, f"--data.folder={many}", "--weights=best", "--seed_everything=5"])
    advice = "--data.seed 5 --data.val_size 100"
    expected = warning(FIRST, "validation and test", f"Give the split of its run: {advice}.")
    assert capsys.readouterr().err == expected
    main(["test"])
    newest = FIRST.replace("version_0", "version_1")
    expected = warning(newest, "validation and test", f"{EARLIER} There is no temperature.")
    assert capsys.readouterr().err == expected
    check_no_temperature(run)
    main([*FIT, f"--weights={FIRST}", *advice.split()])
    assert capsys.readouterr().err == ""
    assert "(of probabilities, fitted on validation images)" in run("predict")


def test_a_run_that_was_resumed_with_another_seed(many: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(*FIT, "--seed_everything=5")
    main(["fit", "--ckpt_path=last", "--data.seed=9", "--trainer.max_epochs=2"])
    advice = "Give the split of its run: --seed_everything 5 --data.seed null --data.val_size 100."
    assert capsys.readouterr().err == (
        "mnist-amp: warning: data.seed None -> 9: this changes the batches, so the run is not continued exactly.\n"
        + warning(FIRST.replace("best", "last"), "validation and test", advice)
    )
    main(["test", "--ckpt_path=last"])  # the best one may be of the first run
    resumed = "lightning_logs/version_1/checkpoints/last.ckpt"
    assert capsys.readouterr().err == warning(resumed, "validation and test", f"{EARLIER} There is no temperature.")
    check_no_temperature(run)


def test_a_fit_from_weights_alone(many: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Its first lines do not warn, or each such fit would."""
    run(*FIT)
    main([*FIT, "--weights=lightning_logs/version_0/model.pth"])
    assert capsys.readouterr().err == ""
    check_no_temperature(run)


def test_a_fit_from_weights_alone_of_other_classes(many: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(*FIT)
    weights = torch.load("lightning_logs/version_0/model.pth")
    name = list(weights)[-1]
    torch.save({**weights, name: torch.zeros(len(weights[name]) + 1)}, "other.pth")
    main([*FIT, "--weights=other.pth", "--weights_strict=false"])
    run("test")
    assert capsys.readouterr().err == ""
    assert json.loads(Path("lightning_logs/version_1/test_best/metrics.json").read_text())["temperature"] is not None


def test_fewer_validation_images_are_validated_on(many: Path, run: Run, refused: Refused) -> None:
    run(*FIT, "--data.val_size=120")
    run("validate", "--data.val_size=110")
    metrics = json.loads(Path("lightning_logs/version_0/validate_best/metrics.json").read_text())
    assert (metrics["images"], metrics["temperature"] is not None) == (110, True)
    assert refused("validate", "--data.val_size=0") == (
        "mnist-amp: error: data.val_size is 0, so no validation images are left. Use `mnist-amp test`.\n"
    )
    assert refused("validate", "--data.val_size=130") == warning(
        FIRST, "validation", "Give the split of its run: --seed_everything 42 --data.val_size 120.", "error"
    )
