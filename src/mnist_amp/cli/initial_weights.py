"""The weights that a new run begins with, instead of random ones: `fit --weights FILE`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from jsonargparse import Namespace
from torch import Tensor, nn

from mnist_amp.cli.arguments import peek
from mnist_amp.data import ClassificationDataModule
from mnist_amp.errors import RequestError, UsageError, warn
from mnist_amp.runs import checkpoint_files, resume
from mnist_amp.runs.config_text import to_yaml
from mnist_amp.runs.trust import trusted_settings
from mnist_amp.wording import counted

SHOWN = 8  # layers in a message


@dataclass
class InitialWeights:
    """Weights of a file, for the network of a new run.

    Attributes:
        path: the file: a checkpoint, weights alone, or a .safetensors file.
        weights: by their names in the module.
        network: class_path and init_args of the network in the file; None if it is unknown.
        data: hyperparameters of the data that it was trained on; none if they are unknown.
        strict: whether all layers must fit.
        fresh: layers of the network that the file does not have in their shape, so they stay random.
        unused: layers of the file that the network does not have.
    """

    path: Path
    weights: dict[str, Tensor]
    network: dict[str, Any] | None
    data: dict[str, Any] = field(default_factory=dict)
    strict: bool = True
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @staticmethod
    def check_arguments(args: Sequence[str]) -> None:
        """Check that the arguments name a file to begin with or a checkpoint to resume from, and not both.

        Raises:
            UsageError: they name both, or the name is empty.
        """
        if all(peek(args, option) not in (None, "null") for option in ("weights", "ckpt_path")):
            raise UsageError("weights begins a new run, and ckpt_path resumes one. Leave one of them out.", "weights")
        if peek(args, "weights") == "":
            raise UsageError("weights is empty; name a file, or leave it out.", "weights")

    @classmethod
    def find(cls, args: Sequence[str]) -> Self | None:
        """Find and read the file to begin a fit with.

        Args:
            args: the arguments after the command.

        Returns:
            None if no file is named.

        Raises:
            RequestError: the file can't be read, or has no weights.
        """
        wanted = peek(args, "weights")
        if wanted in (None, "null"):
            if str(peek(args, "weights_strict")).lower() == "false":
                warn("weights_strict has no effect: no weights are given.")
            return None
        root = Path(str(peek(args, "trainer.default_root_dir") or "."))
        path = checkpoint_files.resolve(str(wanted), root, folder_means="best", option="weights")
        content = checkpoint_files.read(path)
        network = {"network": content["hyper_parameters"]["network"]}
        trusted = trusted_settings(path, network, is_given=lambda option: peek(args, option) is not None)
        data = content.get("datamodule_hyper_parameters") or {}
        return cls(path, content["state_dict"], trusted.get("network"), data)

    @property
    def classes(self) -> list[str]:
        """Names of the classes that it was trained on, in the order of the labels; none if they are unknown."""
        classes = self.data.get("classes")
        return list(map(str, classes)) if isinstance(classes, list | tuple) else []

    def as_argument(self) -> str:
        """Return the network as an argument, weaker than the arguments that follow it."""
        return f"--config={to_yaml({} if self.network is None else {'network': self.network})}"

    def apply_settings(self, config: Namespace) -> None:
        """Take over whether all layers must fit, and check the network.

        Args:
            config: the parsed settings of the fit.

        Raises:
            RequestError: another network is set, and all layers must fit.
        """
        self.strict = config.weights_strict
        if self.strict and (differ := resume.changed_network(self.network, config)):
            same_class = not differ[0].startswith("network ")
            alternative = ", or keep the layers that differ random with --weights_strict false" if same_class else ""
            raise RequestError(
                f"{self.path} holds another network (file -> now): {', '.join(differ)}. Leave "
                f"{', '.join(change.partition(' ')[0] for change in differ)} out{alternative}."
            )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Compare the classes of the file with those of the data, in the order of the labels.

        Raises:
            RequestError: all layers must fit, and the data have only some of the classes.
        """
        missing = [name for name in self.classes if name not in classes]
        if self.strict and missing and len(classes) == len(self.classes) - len(missing):
            raise RequestError(
                f"{self.path} was trained on {counted(len(self.classes), 'class')}, and the data have no images of "
                f"{', '.join(missing[:SHOWN])}. Add some; or train on yours beside the data set of the file, with "
                "--data.extra_folder instead of --data.folder."
            )
        for label, name in enumerate(self.classes):
            if name in classes and classes.index(name) != label:
                now = classes.index(name)
                warn(f"class {label} of {self.path}, {name}, is class {now} of the data, so it is learned again.")
                return

    def check_held_out(self, data: ClassificationDataModule, seed_option: str) -> None:
        """Warn, and note in the data, if the run of the file may have trained on the images that are held out now.

        Weights alone that do not fit all layers, such as those of a network for ImageNet, are from other images.

        Args:
            data: of the new run.
            seed_option: the option that sets their seed.
        """
        seen = resume.seen_images(self.path, self.data, data.hparams, seed_option)
        if seen is None or (seen.by == "unknown" and self.fresh):
            return
        data.mark_as_seen(test=seen.test)
        if seen.by != "unknown":  # or each fit from weights alone would warn
            warn(seen.message)

    def load_into(self, module: nn.Module) -> None:
        """Copy the weights into a module.

        Raises:
            RequestError: a layer does not fit, and all must; or none fits.
        """
        own = module.state_dict()
        fits = {name for name in own if name in self.weights and own[name].shape == self.weights[name].shape}
        self.fresh = [name for name in own if name not in fits]
        self.unused = [name for name in self.weights if name not in own]
        if not fits or (self.strict and (self.fresh or self.unused)):
            raise RequestError(self._describe_differences(own, bool(fits)))
        module.load_state_dict({name: self.weights[name] for name in fits}, strict=False)

    def _describe_differences(self, own: dict[str, Any], some_fit: bool) -> str:
        """Say which layers differ, with their shapes."""
        names = dict.fromkeys([*self.fresh, *self.unused])
        shown = list(names)[:SHOWN]
        differ = ", ".join(f"{name} {_shape(self.weights, name)} -> {_shape(own, name)}" for name in shown)
        differ += f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        advice = (
            "Give the network the shape of the file, or keep these layers random with --weights_strict false."
            if some_fit
            else "No layer fits: name the network of the file with --network, or rename its layers."
        )
        return f"{self.path} does not fit the network. These layers differ (file -> network): {differ}. {advice}"

    def __str__(self) -> str:
        kinds = [("random", self.fresh), ("not used", self.unused)]
        notes = "".join(f"; {kind}: {', '.join(names)}" for kind, names in kinds if names)
        return f"from {self.path}{notes}"


def _shape(weights: dict[str, Any], name: str) -> str:
    if name not in weights:
        return "missing"
    return " x ".join(map(str, weights[name].shape)) or "one value"
