"""The built wheel, installed elsewhere: it holds the data, the configs and the demo's page."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from mnist_amp.cli.arguments import shipped_configs
from mnist_amp.data import mnist
from tests.conftest import command

ROOT = Path(__file__).parents[2]


def test_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("mnist_amp-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"mnist_amp/configs/{path.name}" for path in shipped_configs().glob("*.yaml")} <= names
    assert {f"mnist_amp/data/archives/{path.name}" for path in mnist.ARCHIVES.glob("*")} <= names
    assert "mnist_amp/inference/demo.html" in names

    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)], check=True)
    where = [sys.executable, "-c", "import mnist_amp; print(mnist_amp.__file__)"]
    env = {"PYTHONPATH": str(installed)}
    found = subprocess.run(
        where, cwd=elsewhere, env={**os.environ, **env}, check=True, capture_output=True, text=True
    ).stdout
    assert Path(found.strip()) == installed / "mnist_amp" / "__init__.py"
    smoke = ("-c", "configs/guide.yaml", "-c", "configs/smoke.yaml")
    assert "(no validation; newest weights, after 1 epoch)\n" in command("fit", *smoke, cwd=elsewhere, env=env)
    assert (elsewhere / "lightning_logs" / "version_0" / "model.pth").is_file()
