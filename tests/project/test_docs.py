"""The README and docs/ name files, tests and commands that exist, and show the numbers that are saved."""

import json
import re
import statistics

import pytest

import readme
from mnist_amp.cli.arguments import SUBCOMMANDS
from mnist_amp.networks.simple_nn import SimpleNN
from tests.project.documents import CHINESE, PAGES, ROOT, blocks, text_of


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 200


@pytest.mark.parametrize(
    ("page", "least"), [("docs/reliability.md", 60), ("docs/devices.md", 5), ("docs/resume.md", 20)]
)
def test_pages_name_tests_that_exist(page: str, least: int) -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", text_of(page))
    assert len(named) > least
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^def {name}\(", text_of(f"tests/{file}"), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", [*PAGES, *CHINESE.values()])
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:src|tests|benchmarks|configs|docs|\.ci)/[\w/.-]+)`", text_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_rooms_that_the_tour_names_exist() -> None:
    rooms = "|".join(path.name for path in (ROOT / "src" / "mnist_amp").iterdir() if path.is_dir())
    named = re.findall(rf"`((?:{rooms})/[\w.]*)`", text_of("docs/code.md"))
    assert len(named) > 12
    assert [path for path in named if not (ROOT / "src" / "mnist_amp" / path).exists()] == []


def test_links_of_the_readme() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", text_of("README.md"))
    assert len(linked) > 10
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_the_reference_has_every_command() -> None:
    assert re.findall(r"^<!-- help: (\w+)", text_of("docs/commands.md"), re.MULTILINE) == list(SUBCOMMANDS)


def test_numbers_are_those_of_the_saved_results() -> None:
    """If this fails, run `python benchmarks/readme.py`."""
    for document in readme.documents(ROOT):
        text = document.read_text(encoding="utf-8")
        assert readme.filled(text, ROOT, document.parent) == text, document
    assert readme.left_out(ROOT) == []


def test_the_readmes_seconds_are_those_of_the_saved_runs() -> None:
    runs = json.loads(text_of("docs/results/speed-cpu-bf16.json"))["fp32"]["runs"]
    guide, fit, compiled = (
        statistics.median(run["seconds"] for run in runs if run["contender"] == contender)
        for contender in ("guide", "fit", "compile")
    )
    readme = " ".join(text_of("README.md").split())
    assert f"takes {guide:.1f} seconds with the guide's loop, and {fit:.1f} seconds with `mnist-amp fit`" in readme
    assert f"With `--compile` it takes {compiled:.1f} seconds." in readme


def test_the_output_shown_is_the_same_on_both_pages() -> None:
    (shown,) = (text for _, text in blocks("README.md", "text"))
    assert ("text", shown) in blocks("docs/index.md", "text")
    count = sum(weight.numel() for weight in SimpleNN().parameters())
    assert f"network    SimpleNN (hidden_dim 128), {count:,} parameters\n" in shown
