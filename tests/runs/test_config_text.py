"""YAML: each text that PyYAML writes is read as the same value, and plain words are text unless they are clear."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from mnist_amp.errors import RequestError
from mnist_amp.runs.config_text import parse_yaml, read_yaml, to_yaml

ODD = some.sampled_from(
    ["on", "No", "010", "08", "1:30", "1e3", "1_0", "0x1", "0b1", ".5", "~", "null", "2026-11-25", "="]
)
SCALARS = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | ODD | some.text("a1.:-_e0 ")


@given(some.dictionaries(some.text("abc", min_size=1), SCALARS | some.lists(SCALARS)))
def test_settings_are_read_as_they_were_written(settings: dict[str, Any]) -> None:
    assert parse_yaml(to_yaml(settings), "x") == settings


@pytest.mark.parametrize("word", ["on", "off", "yes", "No", "010", "1:30", "1:00:00:00", "1e3", "2026-11-25", "1:2.5"])
def test_plain_words_that_stay_text(word: str) -> None:
    assert parse_yaml(f"a: {word}", "x") == {"a": word}
    assert not isinstance(yaml.safe_load(f"a: {word}")["a"], str) or word == "1e3"


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), (" No ", False), ("1e-3", 0.001), ("1:30", "1:30"), ("[on, 1]", ["on", 1]), ("word", "word")],
)
def test_a_text_alone(text: str, value: Any) -> None:
    assert read_yaml(text) == value


def test_a_key_that_is_given_twice() -> None:
    with pytest.raises(RequestError, match=r"^x:2:1: this is not YAML: a is given twice\.$"):
        parse_yaml("a: 1\na: 2\n", "x")
    assert parse_yaml("base: &base {a: 1}\nown: {<<: *base, a: 2}\n", "x")["own"] == {"a": 2}
