"""The command `predict`: of the test images, or of images from the user's own files."""

from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback

from mnist_amp.cli import help_texts
from mnist_amp.cli.lightning_cli import MnistAmpCLI, prepare
from mnist_amp.errors import RequestError, RunError
from mnist_amp.inference.image_data import ImageDataModule
from mnist_amp.inference.image_predictions import ImagePredictions
from mnist_amp.wording import counted


class PredictCLI(MnistAmpCLI):
    """Lightning's `predict`, with the option `--images`."""

    images: ImageDataModule | None = None  # scored instead of the test images

    def add_command_arguments(self) -> None:
        parser = self.subcommand_parsers[self.command]
        parser.add_argument("--images", action="extend", nargs="+", type=str, help=help_texts.IMAGES)
        parser.add_argument("--preprocess", type=Literal["mnist", "none"], default="mnist", help=help_texts.PREPROCESS)
        super().add_command_arguments()

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.images:
            self.images = ImageDataModule(config.images, config.preprocess, config.data.batch_size)
        elif config.images is not None or config.preprocess != "mnist":
            raise RequestError("no pictures are named to be scored: name files or folders with --images.")
        super().instantiate_classes()
        self.datamodule = self.images or self.datamodule

    def make_report(self) -> Callback:
        if self.images is None:
            return super().make_report()
        return ImagePredictions(Path(self.config[self.subcommand].trainer.default_root_dir or "."), self.images)

    def after_predict(self) -> None:
        """Have the exit status say that files could not be read, now that the others are scored."""
        if self.images is None or not (problems := self.images.unreadable()):
            return
        self.trainer.strategy.barrier()  # a process that fails ends the others, of which the first one writes
        name, problem = next(iter(problems.items()))
        rest = " The others are scored." if len(problems) < len(self.images.files) else ""
        raise RunError(f"{counted(len(problems), 'file')} could not be read; {name}: {problem}.{rest}")


def run(args: list[str]) -> None:
    """Run the command line `args`, as `mnist_amp.cli.lightning_cli.run` does."""
    prepare()
    PredictCLI(args)
