"""Networks by name: a class or a function is found, and called with plain values and with the facts of the data."""

import copy
import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from mnist_amp.errors import RequestError
from mnist_amp.named_classes import FILLED, WithoutSubConfigs, load_module
from mnist_amp.networks import SHIPPED
from mnist_amp.wording import nearest

NETWORK: dict[str, Any] = {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": 128}}  # the default
Shape = tuple[int, int, int]
if typing.TYPE_CHECKING:
    Init: typing.TypeAlias = dict[str, Any]
else:
    # class_path and init_args. In a dict of anything, jsonargparse would make the classes that its values name
    Init = dict


def make_network(init: Mapping[str, Any], num_classes: int, image_shape: Shape) -> nn.Module:
    """Make a network, and check with images of zeros that it fits the data. Lazy layers get their shapes by this.

    Args:
        init: class_path and init_args, which are plain values. A network of this package may have its short name.
        num_classes: number of classes of the data.
        image_shape: channels, height and width of the images.

    Raises:
        RequestError: there is no such network, it does not take these arguments, or it does not fit the data.

    Examples:
        >>> network = make_network({"class_path": "CNN", "init_args": {"width": 8}}, 7, (3, 32, 32))
        >>> network(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 7])
    """
    class_path, given = with_path(init).values()
    name = class_path.rpartition(".")[2]
    facts = {"num_classes": num_classes, "in_channels": image_shape[0], "image_shape": tuple(image_shape)}
    for key, value in facts.items():
        wanted = given.get(key, value)
        if (tuple(wanted) if isinstance(wanted, list) else wanted) != value:
            raise RequestError(f"{key} of {name} is {wanted}, but that of the data is {value}. Leave it out.")
    network = _make(class_path, find(class_path), given, facts)
    _check_fit(name, network, num_classes, (image_shape[0], image_shape[1], image_shape[2]))
    return network


def with_path(init: Mapping[str, Any]) -> dict[str, Any]:
    """Return class_path, with its module, and init_args of a network.

    Raises:
        RequestError: there is no such network.
    """
    given = {**(init.get("init_args") or {}), **(init.get("dict_kwargs") or {})}  # jsonargparse's, for **kwargs
    return {"class_path": resolve(init["class_path"]), "init_args": given}


def resolve(name: str) -> str:
    """Return the path of a network: `mnist_amp.networks.CNN` for `CNN`, and other paths as they are.

    Raises:
        RequestError: there is no such network.
    """
    if "." in name:
        find(name)
        return name
    if name not in SHIPPED:
        raise RequestError(
            f"there is no network {name}{nearest(name, SHIPPED)}. Those of the package are {', '.join(SHIPPED)}. Name "
            "others with their module, such as torchvision.models.resnet18 or my_package.MyNet."
        )
    return f"mnist_amp.networks.{name}"


def find(class_path: str) -> Callable[..., nn.Module]:
    """Import the class or the function that a path names.

    Raises:
        RequestError: it can't be imported, or it does not make networks.
    """
    module_name, _, name = class_path.rpartition(".")
    if not all(map(str.isidentifier, class_path.split("."))):
        raise RequestError(f"{class_path} is not the name of a class. Give it with its module, as in my_package.MyNet.")
    module = load_module(module_name)
    found = getattr(module, name, None)
    if found is None:
        known = [each for each, value in vars(module).items() if _makes_networks(value)]
        others = f" It has {', '.join(known[:12])}{' and others' if len(known) > 12 else ''}." if known else ""
        raise RequestError(f"{module_name} has no {name}{nearest(name, known)}.{others}")
    if inspect.isfunction(found) and not _makes_networks(found):
        raise RequestError(
            f"{class_path} has no return annotation of a network. Write its first line as "
            f"`def {name}(...) -> nn.Module:`."
        )
    if not _makes_networks(found):
        raise RequestError(f"{class_path} is not a network: neither a subclass of torch.nn.Module nor a function.")
    return typing.cast(Callable[..., nn.Module], found)


def _makes_networks(found: Any) -> bool:
    """Whether an object is a class of networks, or a function that is annotated to return one."""
    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    if not inspect.isfunction(found):
        return False
    try:
        returned = typing.get_type_hints(found).get("return")
    except Exception:  # an annotation may name anything
        return False
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def _make(class_path: str, maker: Callable[..., nn.Module], given: dict[str, Any], facts: dict[str, Any]) -> nn.Module:
    name = class_path.rpartition(".")[2]
    shipped = maker in SHIPPED.values()
    known = list(inspect.signature(maker).parameters) if shipped else _parameters(maker)
    if unknown := [key for key in given if key not in known]:
        takes = [key for key in known if key not in FILLED]
        raise RequestError(
            f"{name} takes no {unknown[0]}{nearest(unknown[0], takes)}; it takes {', '.join(takes) or 'no parameters'}."
        )
    arguments = {**{key: value for key, value in facts.items() if key in known}, **given}
    try:
        network = maker(**arguments) if shipped else _instantiate(class_path, arguments)
    except Exception as error:  # the constructor's own code may raise any
        if isinstance(error, RequestError) or _is_of_memory(error):
            raise
        raise RequestError(f"{name} can't be made: {_first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise RequestError(f"{name} returns {network}, but it must return a network.")
    return network


class Makers(WithoutSubConfigs, ArgumentParser):
    """Makes a network and the classes among its arguments."""


def _parameters(maker: Callable[..., nn.Module]) -> Iterable[str]:
    """Return the parameters of a class or a function, also those that it passes on by **kwargs."""
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(maker) else parser.add_function_arguments
    return [str(key) for key in add(maker, fail_untyped=False)]


def _instantiate(class_path: str, arguments: dict[str, Any]) -> nn.Module:
    """Make a network by jsonargparse, which also makes classes among its arguments and checks their types."""
    parser = Makers(exit_on_error=False)
    parser.add_subclass_arguments((nn.Module,), "network", fail_untyped=False)
    config = parser.parse_object({"network": {"class_path": class_path, "init_args": arguments}})
    network: nn.Module = parser.instantiate(config).network
    return network


def _check_fit(name: str, network: nn.Module, num_classes: int, image_shape: Shape) -> None:
    """Check that a network takes images (2, C, H, W) and returns logits (2, classes); training modes stay."""
    modes = [(module, module.training) for module in network.modules()]
    sizes = " x ".join(map(str, image_shape))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network.eval()(torch.zeros(2, *image_shape))
    except Exception as error:  # the network's own code may raise any
        if _is_of_memory(error):
            raise
        if not isinstance(error, RuntimeError):  # torch's errors of shapes are of this type
            raise RequestError(f"{name} can't compute images of {sizes}: {_first_line(error)}") from error
        raise RequestError(
            f"{name} does not take images of {sizes}: {_first_line(error)} Use another network, or bring the images "
            "into another form with data.image_size and data.channels."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    _check_training(name, network, image_shape)
    if not isinstance(logits, Tensor):
        raise RequestError(f"{name} returns a {type(logits).__name__}, but it must return logits, a Tensor.")
    if tuple(logits.shape) != (2, num_classes):
        raise RequestError(
            f"{name} returns a Tensor of {tuple(logits.shape)} for 2 images of {sizes}, but the data have "
            f"{num_classes} classes, so it must return (2, {num_classes})."
        )
    if sum(math.prod(parameter.shape) for parameter in network.parameters()) == 0:
        raise RequestError(f"{name} has no weights, so there is nothing to train.")


def _check_training(name: str, network: nn.Module, image_shape: Shape) -> None:
    """Check that a copy of a network returns logits in training as well: some return further outputs there."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = copy.deepcopy(network).train()(torch.zeros(2, *image_shape))
    except Exception as error:  # the network's own code may raise any
        if _is_of_memory(error):
            raise
        raise RequestError(f"{name} can't be trained on 2 images: {_first_line(error)}") from error
    if not isinstance(logits, Tensor):
        raise RequestError(
            f"{name} returns a {type(logits).__name__} in training, but it must return logits, a Tensor. Turn its "
            "auxiliary outputs off, as in --network.aux_logits false."
        )


def _is_of_memory(error: Exception) -> bool:
    """Whether the network is too large for this machine, which the command has a message for."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without jsonargparse's own around it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__}".rstrip(".") + "."
