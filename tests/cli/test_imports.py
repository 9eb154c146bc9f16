"""The slow packages that this project's modules import in a fit, and when.

Lightning imports torchmetrics, which imports matplotlib and torchvision if they are installed. So this test records the
import statements of this project, instead of the modules that are loaded.
"""

import subprocess
import sys
from pathlib import Path

# runs the command, and prints the slow packages that modules of mnist_amp import, when they do
PROGRAM = """
import builtins, sys
imports = builtins.__import__
seen = set()
def recorded(name, globals=None, *rest, **others):
    package, importer = name.partition(".")[0], str((globals or {}).get("__name__"))
    if importer.startswith("mnist_amp.") and package in ("matplotlib", "tensorboard", "torchvision"):
        if package not in seen:
            seen.add(package)
            print(f"{importer} imports {package}")
    return imports(name, globals, *rest, **others)
builtins.__import__ = recorded
from mnist_amp.__main__ import main
try:
    main()
finally:
    print(f"tensorboard is {'loaded' if 'tensorboard' in sys.modules else 'not loaded'}")
"""


def test_a_fit_imports_only_what_it_uses(tmp_path: Path, data_dir: Path) -> None:
    args = ["fit", "--config=smoke.yaml", f"--data.data_dir={data_dir}", "--trainer.logger=false"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition("  ")[0] for line in done.stdout.splitlines()] == [
        *("device", "precision", "versions", "network", "data", "seed", "execution", "writes to"),
        done.stdout.splitlines()[8],  # of the epoch
        *("", "accuracy", "time"),
        "mnist_amp.reporting.chart_style imports matplotlib",
        *("files", "next", "", "tensorboard is not loaded"),
    ]


# runs the command, and prints which of the packages that only some users need are loaded at the end
LOADED = """
import sys
from mnist_amp.__main__ import main
try:
    main()
finally:
    optional = {"IPython", "cv2", "ipykernel", "mlflow", "nbclient", "optuna", "pandas", "pillow_heif", "wandb"}
    print("loaded:", sorted(optional & set(sys.modules)))
"""


def test_a_fit_imports_no_optional_package(tmp_path: Path, data_dir: Path) -> None:
    """They take seconds to import. CI has them installed."""
    args = ["fit", "--config=smoke.yaml", f"--data.data_dir={data_dir}"]
    done = subprocess.run([sys.executable, "-c", LOADED, *args], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "loaded: []"
