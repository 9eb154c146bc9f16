"""The command line before it is parsed: config files and environment variables put in their order of strength."""

from collections.abc import Iterable, Mapping
from pathlib import Path

SUBCOMMANDS = ("fit", "validate", "test", "predict")
ENV_PREFIX = "MNIST_AMP_"
DEBUG = "MNIST_AMP_DEBUG"  # shows tracebacks; not a setting


def arrange(args: Iterable[str], env: Mapping[str, str]) -> list[str]:
    """Put a subcommand's config files first, then what the environment sets, then its other arguments.

    What comes later is stronger. `MNIST_AMP_TRAINER__MAX_EPOCHS=2` sets `--trainer.max_epochs=2`.
    """
    rest = list(args)
    place = next((i + 1 for i, arg in enumerate(rest) if arg in SUBCOMMANDS), None)
    if place is None:
        return rest  # --help, --version or a mistake
    configs, others = _split_configs(rest[place:])
    return [*rest[:place], *configs, *_from_environment(env), *others]


def shipped_configs() -> Path:
    """Return the folder of the configs that come with the package: in a wheel inside it, in a clone at the top."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


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
    """Find `configs/guide.yaml` or `guide.yaml` among the shipped configs where there is no such file here."""
    shipped = shipped_configs() / config.removeprefix("configs/")
    return str(shipped) if not Path(config).exists() and shipped.is_file() else config


def _from_environment(env: Mapping[str, str]) -> list[str]:
    return [
        f"--{name.removeprefix(ENV_PREFIX).lower().replace('__', '.')}={value}"
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX) and name != DEBUG
    ]
