"""The command line before it is parsed: config files and environment variables, the weakest first."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mnist_amp.errors import RequestError
from mnist_amp.runs.config_text import parse_yaml, to_yaml

# the module of each command; the first four are Lightning's
COMMANDS = {
    **dict.fromkeys(("fit", "validate", "test"), "mnist_amp.cli.lightning_cli"),
    "predict": "mnist_amp.inference.predict",
    "compare": "mnist_amp.measuring.compare",
    "profile": "mnist_amp.measuring.profile",
    "export": "mnist_amp.inference.export",
    "demo": "mnist_amp.inference.demo",
}
SUBCOMMANDS = tuple(COMMANDS)
GROUPS = ("model", "data", "trainer", "scaler", "checkpoint")  # of options, whose names begin with these
CLASS_GROUPS = ("model", "data")  # of which `compare` and `profile` take a class as well
ENV_PREFIX = "MNIST_AMP_"
DEBUG = "MNIST_AMP_DEBUG"  # shows tracebacks; not a setting


def arrange(args: Iterable[str], env: Mapping[str, str]) -> list[str]:
    """Put the command first, then its config files, the settings of the environment, and its other arguments.

    Later arguments override earlier ones. `MNIST_AMP_TRAINER__MAX_EPOCHS=2` becomes `--trainer.max_epochs=2`:

    >>> arrange(["fit", "--data.seed=3"], {"MNIST_AMP_TRAINER__MAX_EPOCHS": "2"})
    ['fit', '--trainer.max_epochs=2', '--data.seed=3']

    Raises:
        RequestError: a config file is missing or is not a mapping in YAML, or an option stands before the command.
    """
    rest = list(args)
    position = next(i for i, arg in enumerate(rest) if arg in SUBCOMMANDS)
    if position > 0:
        raise RequestError(f"options come after the command: mnist-amp {' '.join([rest.pop(position), *rest])}")
    variables = [argument for _, argument in environment_arguments(env)]
    configs, others = _split_configs([*variables, *rest[1:]])
    for config in configs:
        load(config.removeprefix("--config="))
    return [rest[0], *configs, *_after_their_classes(others, variables)]


def peek(args: Iterable[str], key: str) -> Any:
    """Return the value of an option in config files and arguments, before they are parsed; None if it is not set.

    It is needed before parsing, because the checkpoint's settings decide which options its optimizer has.
    """
    found, remaining = None, iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if name == f"--{key}":
            found = value if equals else next(remaining, None)
        elif name == "--config" and equals:
            setting = find(load(value), key)
            found = found if setting is None else setting
    return found


def class_given(args: Iterable[str], option: str) -> str | None:
    """Return the class that an option names, by its name or its path, before it is parsed; None if it names none."""
    value = peek(args, option)
    value = value.get("class_path") if isinstance(value, Mapping) else value
    return str(value) if isinstance(value, str) and value.isprintable() and value[:1] not in ("{", "[", "") else None


def environment_arguments(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the settings of the environment: each variable with its argument, in lower case."""
    return [
        (name, f"--{name.removeprefix(ENV_PREFIX).lower().replace('__', '.')}={value}")
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX) and name != DEBUG
    ]


def written(args: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield each option in config files and arguments with its value as it is written, before it is parsed."""
    given = list(args)
    for arg, following in itertools.zip_longest(given, given[1:], fillvalue=""):
        name, equals, value = arg.partition("=")
        if name == "--config" and equals:
            yield from _leaves(load(value))
        elif name.startswith("--"):
            yield name.removeprefix("--"), value if equals else following


def source(args: Iterable[str], env: Mapping[str, str], key: str, message: str = "") -> str | None:
    """Return the file or environment variable that sets an option; None for the command line itself.

    If several set it, the strongest whose value is in the error message is returned: a weaker value can be the wrong
    one.
    """
    variables = {_lowered(argument): name for name, argument in environment_arguments(env)}
    found: list[tuple[str, str | None]] = []
    for arg in args:
        name, equals, value = arg.partition("=")
        if name.lower() == f"--{key}".lower():
            found.append((value, variables.get(_lowered(arg))))
        elif name == "--config" and equals and not value.startswith("{"):
            setting = find(load(value), key)
            found += [] if setting is None else [(str(setting), value)]
    blamed = [where for value, where in found if value in message] or [where for _, where in found]
    return blamed[-1] if blamed else None


def load(config: str) -> dict[str, Any]:
    """Read a config file, or settings as YAML that begins with `{`.

    Raises:
        RequestError: there is no such file, or it has no settings; the message names the line.
    """
    try:
        text = config if config.startswith("{") else Path(config).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        shipped = ", ".join(sorted(file.stem for file in shipped_configs().glob("*.yaml")))
        raise RequestError(f"there is no config file {config}. Those of the package are {shipped} (.yaml).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{config} can't be read as a config file: {error}.") from error
    settings = parse_yaml(text, config)
    if "config" in settings:
        raise RequestError(f"{config} has the setting config; give each config file with its own --config.")
    if level := next((key for key in settings if key in COMMANDS), None):
        raise RequestError(
            f"{config} has the level `{level}:`. Leave it out: a config file has lines such as "
            "`data: {batch_size: 32}`, and the command gets it by --config. Two commands with other settings "
            "need two files."
        )
    return settings


def shipped_configs() -> Path:
    """Return the folder of the package's config files: inside the package if installed, at the top of a clone."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "configs"


def _split_configs(args: list[str]) -> tuple[list[str], list[str]]:
    configs, others = [], []
    remaining = iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if name not in ("--config", "-c"):
            others.append(arg)
        elif equals:
            configs.append(f"--config={_locate(value)}")
        elif (value := next(remaining, "")) == "":
            others.append(arg)  # the parser reports that the value is missing
        else:
            configs.append(f"--config={_locate(value)}")
    return configs, others


def _after_their_classes(args: list[str], variables: list[str]) -> list[str]:
    """Move parameters of a class that the environment sets behind the argument that names the class.

    The parser forgets the parameters of a class when another class is named.
    """
    ordered = list(args)
    for variable in filter(ordered.__contains__, variables):
        names = [arg.partition("=")[0] for arg in ordered]
        own = variable.partition("=")[0]
        classes = [i for i, name in enumerate(names) if own.startswith(f"{name}.") and _may_name_class(ordered, i)]
        if classes and classes[-1] > ordered.index(variable):
            last = classes[-1] if "=" in ordered[classes[-1]] else classes[-1] + 1
            ordered.insert(last + 1, variable)
            ordered.remove(variable)  # the first
    return ordered


def _may_name_class(args: list[str], index: int) -> bool:
    """Whether an argument may name a class; that of a group, such as `--data`, may name a file of settings instead."""
    name, equals, value = args[index].partition("=")
    value = value if equals else next(iter(args[index + 1 : index + 2]), "")
    is_file = value.endswith((".yaml", ".yml")) or Path(value).is_file()
    return name[2:] not in GROUPS or (name[2:] in CLASS_GROUPS and not is_file)


def _locate(config: str) -> str:
    """Find `configs/guide.yaml` or `guide.yaml` in the package if there is no such file here.

    A pipe can be read only once, so it is replaced by its text.
    """
    path, shipped = Path(config), shipped_configs() / config.removeprefix("configs/")
    if path.is_fifo():
        return to_yaml(load(config))
    return str(shipped) if not path.exists() and shipped.is_file() else config


def _lowered(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{name.lower()}{equals}{value}"


def _leaves(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, within if key == "init_args" else f"{within}{key}.")
        else:
            yield f"{within}{key}", value


def find(config: Any, key: str) -> Any:
    """Return the setting of an option in a configuration; None if it has none."""
    for part in key.split("."):
        if isinstance(config, dict) and part not in config:
            config = config.get("init_args")  # of an optimizer or a schedule
        config = config.get(part) if isinstance(config, dict) else None
    return config
