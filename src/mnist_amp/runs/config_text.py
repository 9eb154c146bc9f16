"""A configuration as YAML text: read into plain settings, and written back.

YAML 1.1, PyYAML's default, turns plain words into other values: the time `1:00:00:00` into 216000, `010` into 8, and
`on` or `no` into true or false. Here these stay text, and the option that gets the text decides: `on` is true for an
option that takes true or false, and the name `on` for an option that takes a name.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from mnist_amp.errors import RequestError

MOST_VALUES = 10_000  # in a config
UNSERIALIZABLE = "Unable to serialize instance"  # jsonargparse's words
SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
SCIENTIFIC = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"
# the plain words that are not text, by the characters that they begin with; YAML 1.1 has the same and more, so the text
# that PyYAML writes without quotes is text here
WORDS = (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class Loader(yaml.SafeLoader):
    """Reads YAML. Plain words have the meaning of the module's docstring, and no key may be given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith("merge")]
        for number, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:number]):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, word) for tag, word in known if tag.rpartition(":")[2] in ("null", "merge")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern, _first in WORDS:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"({_pattern})$"), list(_first))


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text, such as that of an option; a text that is one word may be a switch or `1e-3`.

    Raises:
        yaml.YAMLError: the text is not YAML.

    Examples:
        >>> read_yaml("{max_time: 1:00:00:00, lr: 0.1, name: no}")
        {'max_time': '1:00:00:00', 'lr': 0.1, 'name': 'no'}
        >>> read_yaml("1e-3"), read_yaml("off")
        (0.001, False)
    """
    word = text.strip()
    if word.lower() in SWITCHES:
        return SWITCHES[word.lower()]
    return float(word) if re.fullmatch(SCIENTIFIC, word) else yaml.load(text, Loader)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Return the settings in a YAML text.

    Args:
        text: YAML.
        name: of the text, for messages.

    Raises:
        RequestError: the text is not YAML, is not a mapping, or holds more values than a config file has.
    """
    try:
        settings = yaml.load(text, Loader)
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
