"""The user's own data set in a folder: images by class, or idx files."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from mnist_amp.data.decoding import Header, read_header, read_pixels
from mnist_amp.data.idx_files import IdxSource, find_idx_files
from mnist_amp.data.image_folder import Listing, Sample, list_images
from mnist_amp.data.image_form import ImageForm, different_sizes
from mnist_amp.data.image_set import Facts, ImageSet, Source
from mnist_amp.data.parallel import map_in_threads
from mnist_amp.errors import RequestError


def make_folder_source(folder: Path, form: ImageForm, seed: int) -> Source:
    """Return the source for a folder: idx files if it has them, else images by class.

    Raises:
        RequestError: it is not a readable folder, or has some of the four idx files only.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder. Name the folder of your images with --data.folder.")
    try:
        idx_files = find_idx_files(folder)
    except OSError as error:
        raise RequestError(
            f"{folder} can't be read: {error.strerror}. Name another folder with --data.folder."
        ) from error
    return FolderSource(folder, form, seed) if idx_files is None else IdxSource(*idx_files, form)


class FolderSource(Source):
    """Images by class in a folder; see `image_folder.list_images`.

    All images become RGB if one has colour, and grey if none has.

    Args:
        folder: the folder.
        form: the form that images are converted to.
        seed: of the draw of the test images, if the folder has no folder `test`.
    """

    def __init__(self, folder: Path, form: ImageForm, seed: int) -> None:
        self.folder, self.form, self.seed = folder, form, seed

    def prepare(self) -> None:
        self.facts()

    def facts(self) -> Facts:
        return self._facts

    @property
    def test_seed(self) -> int | None:
        return self._listing.test_seed

    @torch.inference_mode(False)  # see `Source.load`
    def load(self, *, train: bool) -> ImageSet:
        samples = self._listing.train if train else self._listing.test
        return read_samples(samples, self._facts.image_shape)

    def examples(self, number: int) -> Tensor:
        samples = self._listing.train
        return read_samples(samples[:: max(len(samples) // number, 1)], self._facts.image_shape).images

    @cached_property
    def _listing(self) -> Listing:
        return list_images(self.folder, self.seed)

    @cached_property
    def _facts(self) -> Facts:
        listing = self._listing
        shape = self._shape(listing.train + listing.test)
        return Facts(listing.classes, shape, len(listing.train), len(listing.test))

    def _shape(self, samples: list[Sample]) -> tuple[int, int, int]:
        """Return the shape of the converted images. The files are opened only if it depends on them."""
        if self.form.size is not None and self.form.channels is not None:
            return self.form.shape(self.form.channels, *self.form.size)
        headers: list[Header] = list(map_in_threads(read_header, [sample.path for sample in samples]))
        examples = {(header.height, header.width): "" for header in headers}
        if self.form.size is None and len(examples) > 1:
            for sample, header in reversed(list(zip(samples, headers, strict=True))):
                examples[header.height, header.width] = sample.path.relative_to(self.folder).as_posix()
            raise different_sizes(str(self.folder), examples)
        return self.form.shape(1 if all(header.grey for header in headers) else 3, *next(iter(examples)))


def read_samples(samples: list[Sample], image_shape: tuple[int, int, int]) -> ImageSet:
    """Read images into memory, converted to a shape (C, H, W)."""
    channels, height, width = image_shape
    form = ImageForm((height, width), 1 if channels == 1 else 3)
    images = torch.empty(len(samples), *image_shape, dtype=torch.uint8)

    def read(index: int) -> None:
        images[index] = form.apply(read_pixels(samples[index].path).unsqueeze(0))[0]

    for _ in map_in_threads(read, range(len(samples))):
        pass
    return ImageSet(images, torch.tensor([sample.label for sample in samples]))
