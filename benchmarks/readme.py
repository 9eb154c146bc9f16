"""Copy the saved results into the README and the documents, in English and in Chinese, between their markers.

    python benchmarks/readme.py

A document shows docs/results/NAME.md between `<!-- docs/results/NAME.md -->` and `<!-- end -->`.
"""

import argparse
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = re.compile(r"(<!-- (docs/results/\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path in documents(ROOT):
        path.write_text(filled(path.read_text(encoding="utf-8"), ROOT, path.parent), encoding="utf-8")
    if names := left_out(ROOT):
        sys.exit(f"No document shows {', '.join(names)}.")


def documents(root: Path) -> list[Path]:
    return [*sorted(root.glob("README*.md")), *sorted(root.glob("docs/*.md")), *sorted(root.glob("docs/zh/*.md"))]


def filled(text: str, root: Path, folder: Path) -> str:
    """Return the text of a document in `folder` with the results that are saved under `root`."""
    return SHOWN.sub(lambda found: found[1] + result(root / found[2], root, folder) + found[4], text)


def result(path: Path, root: Path, folder: Path) -> str:
    """Return a saved result, with its links, which start from docs/, as links from `folder`."""
    docs = Path(os.path.relpath(root / "docs", folder)).as_posix()
    text = path.read_text(encoding="utf-8")
    return text if docs == "." else text.replace("](results/", f"]({docs}/results/")


def left_out(root: Path) -> list[str]:
    """Return the results that are saved under `root` and that no document shows."""
    shown = {found[2] for path in documents(root) for found in SHOWN.finditer(path.read_text(encoding="utf-8"))}
    return sorted({f"docs/results/{path.name}" for path in root.glob("docs/results/*.md")} - shown)


if __name__ == "__main__":
    main()
