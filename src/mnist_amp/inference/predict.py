"""The command `predict`: the classes of the test images, or of the user's own image files."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer

from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare
from mnist_amp.errors import RequestError, RunError
from mnist_amp.images.data_form import is_ink_on_paper
from mnist_amp.images.readers import preprocess_for
from mnist_amp.inference.image_data import ImageDataModule, counted_images
from mnist_amp.inference.image_predictions import ImagePredictions
from mnist_amp.inference.saved_images import SavedImages
from mnist_amp.wording import printable

IMAGES = (
    "Images to score instead of the test images: files, folders and patterns such as 'scans/*.png'; PNG, JPEG, BMP, "
    "GIF, TIFF, WebP, AVIF and HEIC, of any size and in any colours; arrays (.npy, .npz) and tables of pixels (.csv). "
    "The predictions are written to lightning_logs/predict. Images unlike the training images are noted: the limit is "
    "such that 1 % of the held-out images that are read correctly are over it, and 3 % for photographs of digits."
)
PREPROCESS = (
    "How the images are prepared: scaled to cover the height and width that the network takes, and cut at the edges "
    "(resize); brought into MNIST's form, ink on paper (mnist); or images of that size, unchanged (none). "
    "auto is mnist for MNIST, QMNIST, EMNIST, KMNIST, USPS and images of your own that have MNIST's form, in 28 x 28 "
    "pixels, and resize for other data."
)
SAVE_IMAGES = (
    "A new folder, to which the images are saved as the network saw them, in a folder for each guess; those with a "
    "note are saved beside it, in FOLDER_check. Look at them, move what is wrong, and train on them: "
    "fit --weights best --data.extra_folder FOLDER."
)


class PredictCLI(MnistAmpCLI):
    """The command line of Lightning's `predict`, with the options `--images`, `--preprocess` and `--save_images`."""

    images: ImageDataModule | None = None  # scored instead of the test images

    def add_command_arguments(self) -> None:
        parser = self.subcommand_parsers[self.command]
        parser.add_argument("--images", action="extend", nargs="+", type=str, help=IMAGES)
        parser.add_argument(
            "--preprocess", type=Literal["auto", "mnist", "resize", "none"], default="auto", help=PREPROCESS
        )
        parser.add_argument("--save_images", type=Path | None, default=None, metavar="FOLDER", help=SAVE_IMAGES)
        super().add_command_arguments()

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if not config.images and (config.images is not None or config.preprocess != "auto" or config.save_images):
            raise RequestError("no images are given; name files or folders with --images.")
        super().instantiate_classes()
        self.datamodule = self.images or self.datamodule

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the images first: they need the data of the checkpoint, and the report needs them."""
        config, data = self.config[self.subcommand], self.datamodule
        if config.images:
            preprocess = preprocess_for(data, config.preprocess)
            self.images = ImageDataModule(
                *(config.images, preprocess, data.batch_size, data.image_shape, data.normalization, data.classes),
                ink_on_paper=preprocess == "none" and is_ink_on_paper(data),  # `none` alone needs to know
            )
        return super().instantiate_trainer(**kwargs)

    def make_report(self) -> Callback:
        if self.images is None:
            return super().make_report()
        config = self.config[self.subcommand]
        saved = SavedImages(config.save_images, self.images.classes) if config.save_images else None
        return ImagePredictions(Path(config.trainer.default_root_dir or "."), self.images, self.datamodule, saved)

    def after_predict(self) -> None:
        """Fail if a file could not be read, after the others were scored."""
        if self.images is None or not (unreadable := self.images.unreadable()):
            return
        self.trainer.strategy.barrier()  # a process that fails ends the others, and the first is still writing
        first = f"{printable(unreadable[0].path)}: {unreadable[0].error}"
        folder = self.written_report()  # none in other processes, which print nothing
        table = "" if folder is None else f", see {folder}/predictions.csv"
        rest = f" The others were scored{table}." if len(unreadable) < len(self.images.loaded) else ""
        raise RunError(f"{counted_images(unreadable)} could not be read; {first}.{rest}")


def run(args: list[str]) -> PredictCLI:
    """Run the command line `args`, as `mnist_amp.cli.lightning_cli.run` does."""
    prepare()
    return PredictCLI(args)
