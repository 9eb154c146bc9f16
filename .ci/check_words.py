"""Check that the words of .ci/words.toml are not used; print each place, and the words to use instead.

    python .ci/check_words.py [path ...]

Without paths, it checks every text file of the project. A line that contains `words: allow` is not checked.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKED = (
    "src",
    "tests",
    "benchmarks",
    "docs",
    "configs",
    "examples",
    ".ci/site.py",
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
SUFFIXES = {".py", ".md", ".yaml", ".html"}
START = r"(?:^ *|[.!?] |^ *# |\"\"\"|\")"  # of a sentence
ALLOWED = "words: allow"


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or [ROOT / name for name in CHECKED]
    found = [line for path in sorted(text_files(paths)) for line in check(path, patterns())]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(f"{len(found)} words that are not used here, see .ci/words.toml." if found else 0)


def patterns() -> list[tuple[re.Pattern[str], str]]:
    lists = tomllib.loads((ROOT / ".ci" / "words.toml").read_text(encoding="utf-8"))
    words = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in lists["words"].items()]
    return words + [(re.compile(START + pattern), instead) for pattern, instead in lists["sentences"].items()]


def text_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        inside = [path] if path.is_file() else path.rglob("*")
        yield from (file for file in inside if file.suffix in SUFFIXES and file.is_file())


def check(path: Path, wanted: list[tuple[re.Pattern[str], str]]) -> Iterator[str]:
    """Yield `file:line: word -> instead` for each word in a file."""
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if ALLOWED not in line:
            for pattern, instead in wanted:
                if match := pattern.search(line.replace("_", " ")):  # names consist of words
                    yield f"{name}:{number}: {match[0].strip()} -> {instead}"


if __name__ == "__main__":
    main()
