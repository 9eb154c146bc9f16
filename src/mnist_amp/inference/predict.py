"""The command `predict`: the digits in the test images, or in the user's own image files."""

from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback

from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare
from mnist_amp.errors import RequestError, RunError
from mnist_amp.inference.image_data import ImageDataModule
from mnist_amp.inference.image_files import printable
from mnist_amp.inference.image_predictions import ImagePredictions
from mnist_amp.wording import counted

IMAGES = (
    "Images of digits to score instead of the test images: files, folders and patterns such as 'scans/*.png'; PNG, "
    "JPEG, BMP, GIF, TIFF and WebP, of any size and in any colours. The predictions are written to "
    "lightning_logs/predict."
)
PREPROCESS = "Bring the images into MNIST's form (mnist), or take images of 28 x 28 pixels as they are (none)."


class PredictCLI(MnistAmpCLI):
    """The command line of Lightning's `predict`, with the options `--images` and `--preprocess`."""

    images: ImageDataModule | None = None  # scored instead of the test images

    def add_command_arguments(self) -> None:
        parser = self.subcommand_parsers[self.command]
        parser.add_argument("--images", action="extend", nargs="+", type=str, help=IMAGES)
        parser.add_argument("--preprocess", type=Literal["mnist", "none"], default="mnist", help=PREPROCESS)
        super().add_command_arguments()

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.images:
            self.images = ImageDataModule(config.images, config.preprocess, config.data.batch_size)
        elif config.images is not None or config.preprocess != "mnist":
            raise RequestError("no images are given; name files or folders with --images.")
        super().instantiate_classes()
        self.datamodule = self.images or self.datamodule

    def make_report(self) -> Callback:
        if self.images is None:
            return super().make_report()
        return ImagePredictions(Path(self.config[self.subcommand].trainer.default_root_dir or "."), self.images)

    def after_predict(self) -> None:
        """Fail if a file could not be read, after the others were scored."""
        if self.images is None or not (unreadable := self.images.unreadable()):
            return
        self.trainer.strategy.barrier()  # a process that fails ends the others, and the first is still writing
        first = f"{printable(unreadable[0].path)}: {unreadable[0].error}"
        rest = " The others were scored." if len(unreadable) < len(self.images.files) else ""
        raise RunError(f"{counted(len(unreadable), 'file')} could not be scored; {first}.{rest}")


def run(args: list[str]) -> None:
    """Run the command line `args`, as `mnist_amp.cli.lightning_cli.run` does."""
    prepare()
    PredictCLI(args)
