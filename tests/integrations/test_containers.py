"""Dockerfile, .dockerignore and devcontainer.json: linted, checked against each other, and built where docker can."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("containers")  # the image is built once

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BASE = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)[0]
STAGES = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
IN_CI = os.environ.get("CI_INTEGRATIONS") == "1"


def succeeds(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, timeout=300).returncode == 0


def why_not_built() -> str | None:
    """Return why no image can be built here; None if one can."""
    if not IN_CI:
        return "builds an image only with CI_INTEGRATIONS=1"
    if shutil.which("docker") is None or not succeeds("docker", "info"):
        return "no docker daemon answers: the Dockerfile is linted, not built"
    return None if succeeds("docker", "pull", BASE) else f"{BASE} can't be pulled: the Dockerfile is linted, not built"


@pytest.mark.skipif(HADOLINT is None and not IN_CI, reason="needs hadolint: make integrations")
def test_hadolint_finds_nothing() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_stages() -> None:
    assert STAGES == ["dependencies", "dev", "command"]  # the last one is built by default


def test_the_user_is_not_root() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:3]:
        assert re.findall(r"^USER (\d+)$", stage, re.MULTILINE)[-1] == "1000"


def test_devcontainer() -> None:
    path = ROOT / ".devcontainer" / "devcontainer.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    build = config["build"]
    assert (path.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (path.parent / build["context"]).resolve() == ROOT
    assert build["target"] in STAGES
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert f"--uid 1000 {config['remoteUser']} " in DOCKERFILE
    assert config["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].startswith("/opt/venv/")


def test_the_context_is_what_the_package_is_built_from(tmp_path: Path) -> None:
    """Build the wheel from the files that .dockerignore leaves, and compare it with the source."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    everything, *kept, caches = (line for line in lines if not line.startswith("#"))
    assert (everything, caches) == ("*", "**/__pycache__")
    context = tmp_path / "context"
    context.mkdir()
    for name in (line.removeprefix("!") for line in kept):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, context / name)
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, *build, str(context)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    built = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {path.relative_to(ROOT / "src") for path in (ROOT / "src" / "mnist_amp").rglob("*") if path.is_file()}
    configs = {f"mnist_amp/configs/{path.name}" for path in (ROOT / "configs").glob("*")}
    assert built == {path.as_posix() for path in source if "__pycache__" not in path.parts} | configs


@pytest.fixture(scope="module")
def image() -> str:
    if reason := why_not_built():
        pytest.skip(reason)
    subprocess.run(["docker", "build", "--tag", "mnist-amp:test", str(ROOT)], check=True, timeout=1200)
    return "mnist-amp:test"


def in_container(*words: str) -> str:
    return subprocess.run(["docker", "run", "--rm", *words], check=True, capture_output=True, text=True).stdout


def test_the_image_trains(image: str) -> None:
    printed = in_container(image, "fit", "--config", "smoke.yaml")
    assert "network    SimpleNN (hidden_dim 128), 101,770 parameters\n" in printed
    assert "files     lightning_logs/version_0/ (" in printed


def test_the_image_takes_any_user_and_a_folder(image: str, tmp_path: Path) -> None:
    user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "12345:12345"
    tmp_path.chmod(0o777)
    in_container("--user", user, "--volume", f"{tmp_path}:/work", image, "fit", "--config", "smoke.yaml")
    assert (tmp_path / "lightning_logs" / "version_0" / "model.pth").is_file()


def test_the_image_has_no_cuda(image: str) -> None:
    printed = in_container("--entrypoint", "python", image, "-c", "import torch; print(torch.version.cuda)")
    assert printed == "None\n"
