"""The check of words finds the words of its list, and nothing in a line that allows them."""

import subprocess
import sys
from pathlib import Path

from tests.project.documents import ROOT


def checked(path: Path) -> tuple[int, list[str]]:
    program = [sys.executable, str(ROOT / ".ci" / "check_words.py"), str(path)]
    done = subprocess.run(program, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def test_a_word_is_reported_with_its_place_and_a_better_word(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("A line.\nDraw it anew.\ngoes_on_from, too.\n")  # words: allow
    assert checked(page) == (
        1,
        [
            f"{page}:2: anew -> again, overridden",  # words: allow
            f"{page}:3: goes on from -> resume, continue",  # words: allow
            f"{page}:3: , too. -> also",  # words: allow
        ],
    )


def test_a_marked_line_is_not_checked(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Draw it anew. <!-- words: allow -->\nIs it new? Which is it?\n")
    assert checked(page) == (0, [])
