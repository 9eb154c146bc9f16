"""The command line before it is parsed: config files and environment variables put in their order of strength."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mnist_amp.errors import RequestError
from mnist_amp.runs.config_text import parse_yaml, to_yaml

# the module of each command; Lightning has the first four
COMMANDS = {
    **dict.fromkeys(("fit", "validate", "test"), "mnist_amp.cli.lightning_cli"),
    "predict": "mnist_amp.inference.predict",
    "compare": "mnist_amp.measuring.compare",
    "profile": "mnist_amp.measuring.profile",
    "export": "mnist_amp.inference.export",
    "demo": "mnist_amp.inference.demo",
}
SUBCOMMANDS = tuple(COMMANDS)
ENV_PREFIX = "MNIST_AMP_"
DEBUG = "MNIST_AMP_DEBUG"  # shows tracebacks; not a setting


def arrange(args: Iterable[str], env: Mapping[str, str]) -> list[str]:
    """Put the subcommand first, then its config files, what the environment sets, and its other arguments.

    What comes later is stronger. `MNIST_AMP_TRAINER__MAX_EPOCHS=2` sets `--trainer.max_epochs=2`.

    Raises:
        RequestError: a config file is missing or not YAML settings, or an option stands before the subcommand.
    """
    rest = list(args)
    place = next(i for i, arg in enumerate(rest) if arg in SUBCOMMANDS)
    if place > 0:
        raise RequestError(f"options come after the command: mnist-amp {' '.join([rest.pop(place), *rest])}")
    configs, others = _split_configs(rest[1:])
    for config in configs:
        load(config.removeprefix("--config="))
    return [rest[0], *configs, *_from_environment(env), *others]


def peek(args: Iterable[str], key: str) -> Any:
    """Return what an option will be by config files and arguments, before they are parsed; None if nothing says it.

    The parser needs to know the checkpoint's settings beforehand, to know which options its optimizer takes.
    """
    found, remaining = None, iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if name == f"--{key}":
            found = value if equals else next(remaining, None)
        elif name == "--config" and equals:
            said = _lookup(load(value), key)
            found = found if said is None else said
    return found


def source(args: Iterable[str], env: Mapping[str, str], key: str, message: str = "") -> str | None:
    """Return which file or environment variable an option has its value from; None for the command line itself.

    Where several set it, it is the strongest of those whose value is in `message`, as a weaker one can be wrong, too.
    """
    variables = {argument: name for name, argument in _settings_of(env)}
    found: list[tuple[str, str | None]] = []
    for arg in args:
        name, equals, value = arg.partition("=")
        if name == f"--{key}":
            found.append((value, variables.get(arg)))
        elif name == "--config" and equals and not value.startswith("{"):
            said = _lookup(load(value), key)
            found += [] if said is None else [(str(said), value)]
    blamed = [where for value, where in found if value in message] or [where for _, where in found]
    return blamed[-1] if blamed else None


def load(config: str) -> dict[str, Any]:
    """Read a config file, or settings given as text that begins with `{`.

    Raises:
        RequestError: there is no such file, or it does not hold settings; the message says where in it.
    """
    try:
        text = config if config.startswith("{") else Path(config).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        shipped = ", ".join(sorted(file.stem for file in shipped_configs().glob("*.yaml")))
        raise RequestError(f"there is no config file {config}. Shipped are {shipped} (.yaml).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{config} can't be read as a config file: {error}.") from error
    settings = parse_yaml(text, config)
    if "config" in settings:
        raise RequestError(f"{config} names another config file; give each with a --config of its own.")
    return settings


def shipped_configs() -> Path:
    """Return the folder of the configs that come with the package: in a wheel inside it, in a clone at the top."""
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
            others.append(arg)  # the parser says that its value is missing
        else:
            configs.append(f"--config={_locate(value)}")
    return configs, others


def _locate(config: str) -> str:
    """Find `configs/guide.yaml` or `guide.yaml` among the shipped configs where there is no such file here.

    What can be read only once, such as a pipe, is read here, and goes on as text.
    """
    path, shipped = Path(config), shipped_configs() / config.removeprefix("configs/")
    if path.is_fifo():
        return to_yaml(load(config))
    return str(shipped) if not path.exists() and shipped.is_file() else config


def _from_environment(env: Mapping[str, str]) -> list[str]:
    return [argument for _, argument in _settings_of(env)]


def _settings_of(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the environment's settings: the variable, and the argument that it stands for."""
    return [
        (name, f"--{name.removeprefix(ENV_PREFIX).lower().replace('__', '.')}={value}")
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX) and name != DEBUG
    ]


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(config, dict) and part not in config:
            config = config.get("init_args")  # of an optimizer or a schedule
        config = config.get(part) if isinstance(config, dict) else None
    return config
