"""Classes that the user names, such as a network or a data set: their modules, and the parsers that make them."""

import importlib
from types import ModuleType
from typing import Any

from mnist_amp.errors import RequestError

FILLED = ("num_classes", "in_channels", "image_shape")  # parameters of a network that are filled from the data


class WithoutSubConfigs:
    """A base of a jsonargparse parser that reads no value as a config file because a file has that name."""

    def _add_signature_parameter(self, *args: Any, **kwargs: Any) -> None:
        """Add an option without jsonargparse's `sub_configs`, which its public methods can't turn off for a class."""
        super()._add_signature_parameter(*args, **{**kwargs, "sub_configs": False})  # type: ignore[misc]


def load_module(name: str) -> ModuleType:
    """Import a module, installed or in the current folder.

    Raises:
        RequestError: there is no such module, or its code fails.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # the module's own code may raise any
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            raise RequestError(
                f"there is no module {missing}. Install the package that it is in, or run the command in its folder."
            ) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RequestError(f"the module {name} can't be imported: {reason}.") from error
