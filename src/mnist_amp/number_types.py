"""Number types with a range, for parameters that are options: `--help` shows the range and the parser enforces it.

A value stays a plain `int` or `float`, so that a checkpoint which holds it loads with `weights_only=True`. To a type
checker and to a caller from Python, each type is `int` or `float`: the parser alone enforces the range.

    def __init__(self, width: PositiveInt = 128) -> None: ...

makes `--model.width 0` end in `model.width is 0; it must be at least 1.`
"""

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonargparse.typing
from jsonargparse.typing import register_type, restricted_number_type


def number_type(name: str, base: type[int] | type[float], *bounds: tuple[str, float]) -> Any:
    """Make a number type.

    Args:
        name: shown in --help, such as `int from 0 to 9`.
        base: int or float.
        bounds: each a comparison and a number, such as `(">=", 0)`.
    """
    return _plain(restricted_number_type(name, base, list(bounds)), base)


def _plain(kind: Any, base: type[int] | type[float]) -> Any:
    """Have the parser make plain numbers, where jsonargparse makes instances of `kind`."""

    def parse(value: Any) -> int | float:
        try:
            return base(kind(value))
        except (ValueError, TypeError) as error:
            if "restriction" in str(error):
                raise
            raise ValueError(f"Expected a {base}\nGiven value: {value}") from error

    register_type(kind, base, parse, type_check=lambda value, _: False, fail_already_registered=False)
    return kind


if TYPE_CHECKING:
    PositiveInt: TypeAlias = int
    PositiveInt32: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    Seed: TypeAlias = int
    Port: TypeAlias = int
    PositiveFloat: TypeAlias = float
    FloatAbove1: TypeAlias = float
    LossScale: TypeAlias = float
    OpenUnitInterval: TypeAlias = float
    ClosedUnitInterval: TypeAlias = float
else:
    PositiveInt = _plain(jsonargparse.typing.PositiveInt, int)
    NonNegativeInt = _plain(jsonargparse.typing.NonNegativeInt, int)
    OpenUnitInterval = _plain(jsonargparse.typing.OpenUnitInterval, float)
    ClosedUnitInterval = _plain(jsonargparse.typing.ClosedUnitInterval, float)
    PositiveInt32 = number_type("int from 1 to 2147483647", int, (">=", 1), ("<=", 2**31 - 1))
    Seed = number_type("int from 0 to 4294967295", int, (">=", 0), ("<=", 2**32 - 1))  # numpy's limit
    Port = number_type("int from 0 to 65535", int, (">=", 0), ("<=", 65535))
    PositiveFloat = number_type("float above 0", float, (">", 0), ("<", math.inf))
    FloatAbove1 = number_type("float above 1", float, (">", 1), ("<", math.inf))
    LossScale = number_type("float above 0 and at most 1e12", float, (">", 0), ("<=", 10**12))
