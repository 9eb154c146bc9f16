"""The LightningDataModule of images by class: MNIST by default."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from mnist_amp.data.loader import Batch, SequentialLoader, ShuffledLoader, generator
from mnist_amp.data.memory import check_memory
from mnist_amp.data.normalization import TO_UNIT, Normalization
from mnist_amp.data.sources import make_source
from mnist_amp.errors import RequestError
from mnist_amp.number_types import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from mnist_amp.wording import counted

if TYPE_CHECKING:
    from mnist_amp.data.extra_folder import ExtraFolder

VALIDATION_SHARE = 12  # by default, one of 12 training images is held out; of MNIST, 5,000


class MemoryDataModule(LightningDataModule):
    """Images that are kept in memory, on the device that uses them.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        batch_size: images per batch and process.
        normalization: of the images.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    normalization = TO_UNIT

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch unchanged: its images are on the device already."""
        return batch

    def predict_dataloader(self) -> SequentialLoader:
        return self.sequential(torch.arange(len(self.labels)))

    def sequential(self, indices: Tensor) -> SequentialLoader:
        """Return a loader that evaluates the images at these indices."""
        assert self.trainer is not None
        return SequentialLoader(
            self.images,
            self.labels,
            indices,
            self.batch_size,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.normalization,
        )


IMAGES_AHEAD = "images_ahead"


class ClassificationDataModule(MemoryDataModule):
    """Images by class, kept as uint8 on the device that trains, and normalised there.

    Validation images are held out of the training images. The test images are for `test` and `predict`.

    Args:
        data_dir: folder for the files of the data set, created if it is missing; torchvision calls it `root`. MNIST's
            folders MNIST and MNIST/raw mean the same, if they hold the files
        dataset: a classification data set of torchvision by name, such as FashionMNIST or CIFAR10, or a class of your
            own with the same constructor: (root, train=..., download=...)
        dataset_args: more arguments of the data set's class, such as `{split: letters}` of EMNIST
        folder: a folder with your own images instead of a data set: CLASS/*.png, or train/CLASS/*.png and
            test/CLASS/*.png, or four files of MNIST's format
        extra_folder: a folder with more training images by class, CLASS/*.png, such as your own digits beside MNIST.
            They are a tenth of the images of an epoch, repeated if they are fewer. None of them is held out. Only `fit`
            reads them
        image_size: height and width that the images are resized to; one number for a square. By default they must all
            have the same size
        channels: 1 for grey images, 3 for colour; by default as the images are
        mean: of the normalisation, for values from 0 to 1; one number, or one for each channel
        std: of the normalisation; one number, or one for each channel
        batch_size: images per batch and process
        val_size: training images held out for validation, by default one of twelve (5,000 of MNIST); 0 trains on all
        seed: seed of the order of the images and of the validation images; the default is the seed of seed_everything.
            If it is given, it also chooses the test images of a folder that has no folder `test`

    Attributes:
        classes: names of the classes.
        num_classes: their number.
        image_shape: channels, height and width.
        train_size: number of the data set's training images, with those held out.
        extra_size: number of the extra images.
        val_is_unseen: whether the network was not trained on the validation images, as far as is known.

    Raises:
        RequestError: a size is out of range, or the data set can't be read.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from mnist_amp.module import LitClassifier
        >>> data = ClassificationDataModule(batch_size=32, val_size=1000)
        >>> Trainer(max_epochs=1).fit(LitClassifier(), data)  # doctest: +SKIP
    """

    val_is_unseen = True

    def __init__(
        self,
        data_dir: str = "data",
        dataset: str = "MNIST",
        dataset_args: dict[str, Any] | None = None,
        folder: str | None = None,
        extra_folder: str | None = None,
        image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None,
        channels: Literal[1, 3] | None = None,
        mean: float | list[float] = 0.5,
        std: PositiveFloat | list[PositiveFloat] = 0.5,
        batch_size: PositiveInt = 64,
        val_size: NonNegativeInt | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__()
        # the test images of a folder are the same for every seed_everything: weights alone do not tell it
        split_seed = 0 if seed is None else seed
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        own = None if folder is None else Path(folder)
        self.source = make_source(Path(data_dir), dataset, dataset_args, own, image_size, channels, split_seed)
        self.classes, self.image_shape, self.train_size, _ = self.source.facts()
        self.extra = None if extra_folder is None else self._extra(Path(extra_folder), resize=image_size is not None)
        self.extra_size = 0 if self.extra is None else len(self.extra)
        self.num_classes = len(self.classes)
        val_size = self.train_size // VALIDATION_SHARE if val_size is None else val_size
        self._check(batch_size, val_size, mean, std)
        self.batch_size, self.val_size, self.seed = batch_size, val_size, seed
        self.normalization = Normalization(mean, std)
        # images of an epoch that are done beyond its batches, after another batch size; see `runs.epoch_position`
        self.ahead = {"epoch": 0, IMAGES_AHEAD: 0}
        self.save_hyperparameters()
        # facts of the data, which a checkpoint compares with those of a later command
        self.hparams.update(
            classes=list(self.classes),
            train_size=self.train_size,
            extra_size=self.extra_size,
            test_seed=self.source.test_seed,
        )

    def mark_as_seen(self, *, test: bool) -> None:
        """Note, also for the checkpoints, that the network may have been trained on the validation images.

        Args:
            test: whether also on the test images.
        """
        self.val_is_unseen = self.hparams["val_is_unseen"] = False
        if test:
            self.hparams["test_is_unseen"] = False

    def _extra(self, folder: Path, *, resize: bool) -> "ExtraFolder":
        from mnist_amp.data.extra_folder import ExtraFolder  # imports Pillow

        return ExtraFolder(folder, self.classes, self.image_shape, resize=resize)

    def _check(self, batch_size: int, val_size: int, mean: float | list[float], std: float | list[float]) -> None:
        if not 1 <= batch_size <= self.train_size:
            bound = f"at most {self.train_size}, the number of training images" if batch_size > 1 else "at least 1"
            raise RequestError(f"data.batch_size is {batch_size}; it must be {bound}.")
        if not 0 <= val_size < self.train_size:
            raise RequestError(
                f"data.val_size is {val_size}; it must be at least 0 and leave some of the {self.train_size:,} images "
                "to train on."
            )
        for number in mean if isinstance(mean, list) else [mean]:
            if not 0 <= number <= 1:
                raise RequestError(f"data.mean has {number}; it must be from 0 to 1, as the values of the images are.")
        channels = self.image_shape[0]
        for name, value in (("mean", mean), ("std", std)):
            if isinstance(value, list) and len(value) != channels:
                raise RequestError(
                    f"data.{name} has {len(value)} numbers, but the images have {counted(channels, 'channel')}. Give "
                    "one number, or one for each channel."
                )

    def state_dict(self) -> dict[str, Any]:
        """Return by how many images the position in this epoch is ahead of its batches, if it is."""
        assert self.trainer is not None
        is_ahead = self.ahead[IMAGES_AHEAD] and self.ahead["epoch"] == self.trainer.current_epoch
        return dict(self.ahead) if is_ahead else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.ahead = state_dict

    def _position(self) -> tuple[int, int]:
        """Return the epoch, and the number of its images that are done in all processes."""
        assert self.trainer is not None
        epoch, batches = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1
        ahead = self.ahead[IMAGES_AHEAD] if self.ahead["epoch"] == epoch else 0
        return epoch, batches * self.batch_size * self.trainer.world_size + ahead

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        device, train = self.trainer.strategy.root_device, stage in ("fit", "validate")
        extra = self.extra if stage == "fit" else None
        facts = self.source.facts()
        number = facts.train_size if train else facts.test_size
        needed = 0 if self.source.is_read(train=train) else number
        if extra is not None:  # both are copied to join them
            needed += number + 2 * len(extra)
        if needed:
            check_memory(needed, facts.image_shape, device, self.trainer.num_devices)
        found = self.source.load(train=train)
        images, labels = found if extra is None else extra.append_to(found)
        self.images, self.labels = images.to(device), labels.to(device)

    def train_dataloader(self) -> ShuffledLoader:
        trainer = self.trainer
        assert trainer is not None
        return ShuffledLoader(
            self.images,
            self.labels,
            self.split()[0],
            self.batch_size,
            position=self._position,
            # Lightning does the same with a DataLoader: overfitting repeats the same batches
            seed=None if trainer.overfit_batches else self.seed,  # type: ignore[attr-defined]
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            normalization=self.normalization,
        )

    def val_dataloader(self) -> SequentialLoader | list[SequentialLoader]:
        return self.sequential(self.split()[1]) if self.val_size else []

    def test_dataloader(self) -> SequentialLoader:
        return self.predict_dataloader()

    def split(self) -> tuple[Tensor, Tensor]:
        """Return the indices of the images to train on and of those held out, (N,) and (V,).

        Those of extra images come last, and more than once if they are few. The images held out of a data set are the
        same with and without them, so weights that were trained on it have seen none of these.
        """
        order = torch.randperm(self.train_size, generator=generator(self.seed, -1))
        train, held_out = order[self.val_size :].sort().values, order[: self.val_size].sort().values
        if self.extra is not None:
            train = torch.cat([train, self.extra.indices(self.train_size, len(train))])
        return train, held_out
