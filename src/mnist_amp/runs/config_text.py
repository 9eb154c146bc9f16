"""A configuration as YAML text: read into plain settings, and written back."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import yaml

from mnist_amp.errors import RequestError

MOST_VALUES = 10_000  # in a config
UNSERIALIZABLE = "Unable to serialize instance"  # jsonargparse's words


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Return the settings in a YAML text.

    Args:
        text: YAML.
        name: of the text, for messages.

    Raises:
        RequestError: the text is not YAML, is not a mapping, or holds more values than a config file has.
    """
    try:
        settings = yaml.safe_load(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RequestError(
            f"{name}:{line}: this is not YAML: it has the character {chr(error.character)!r}."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise RequestError(f"{place}: this is not YAML: {getattr(error, 'problem', None) or error}.") from error
    except RecursionError as error:
        raise RequestError(f"{name} is nested too deeply.") from error
    except ValueError as error:  # for example an impossible date
        raise RequestError(f"{name}: this can't be read as YAML: {error}.") from error
    if not isinstance(settings, dict):
        raise RequestError(f"{name} holds no settings; a config file has lines such as `data: {{batch_size: 32}}`.")
    if len(list(itertools.islice(_values(settings), MOST_VALUES))) == MOST_VALUES:
        raise RequestError(f"{name} has more than {MOST_VALUES:,} values. A YAML alias may refer to itself.")
    return settings


def to_yaml(settings: dict[str, Any]) -> str:
    """Return settings as one line of YAML, which `--config` takes instead of a file."""
    return yaml.safe_dump(settings, default_flow_style=True, width=math.inf, sort_keys=False).strip()


def without_objects(text: str) -> str:
    """Return the YAML of a configuration without the values that YAML can't hold.

    jsonargparse writes a sentence instead of them, which no parser takes. They are defaults of a class, such as a
    `torch.device`, and stay so if they are left out.
    """
    return text if UNSERIALIZABLE not in text else yaml.safe_dump(_plain(yaml.safe_load(text)), sort_keys=False)


def _plain(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {key: _plain(value) for key, value in settings.items() if not _is_object(value)}
    return [_plain(value) for value in settings if not _is_object(value)] if isinstance(settings, list) else settings


def _is_object(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(UNSERIALIZABLE)


def _values(settings: Any) -> Iterator[Any]:
    """Yield all values of nested settings. YAML aliases may make them endless."""
    waiting = [settings]
    while waiting:
        value = waiting.pop()
        yield value
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
