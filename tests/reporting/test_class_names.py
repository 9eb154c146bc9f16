import doctest

from mnist_amp.reporting import channels, class_names
from mnist_amp.reporting.class_names import shortened, unique_names


def test_names_that_look_numbered_already_stay_unique() -> None:
    assert unique_names(["a", "a", "a (0)"]) == ["a (0)", "a (1)", "a (0) (2)"]
    assert unique_names(["two\nlines", "\udcff"]) == ["two\\nlines", "\\udcff"]


def test_shortened_names_have_the_length() -> None:
    assert [shortened("abcdefgh", length) for length in range(4, 9)] == [
        "a...",
        "a...h",
        "ab...h",
        "ab...gh",
        "abcdefgh",
    ]


def test_examples() -> None:
    assert [doctest.testmod(module).failed for module in (channels, class_names)] == [0, 0]
