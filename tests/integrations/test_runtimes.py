"""docs/runtimes.md: exported ONNX files in Python, in a browser, in OpenCV, and in old versions of onnxruntime."""

import functools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import text_to_be_present_in_element
from selenium.webdriver.support.wait import WebDriverWait

import old_onnxruntime
from mnist_amp.__main__ import main
from mnist_amp.data import mnist
from tests.browser import start_browser
from tests.conftest import ROOT
from tests.integrations.packages import needs

pytestmark = pytest.mark.xdist_group("runtimes")  # the files are exported once

FOLDER = Path("lightning_logs/export/version_0")
PAGE = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
QUICK = ("--trainer.max_epochs=1", "--trainer.precision=32-true", "--optimizer.lr=0.003")
ALLOWED = {
    "float32": 2,
    "float16": 10,
    "bfloat16": 2,
    "int8": 10,
}  # guesses of 10,000 that another order of sums changes
# the guesses of a file for images.bin, a batch of 1,000 after the other
READ_ALL = """
const [name, done] = arguments;
(async () => {
    const ort = await import("./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(name);
    const pixels = new Uint8Array(await (await fetch("images.bin")).arrayBuffer());
    const guesses = [];
    for (let start = 0; start < pixels.length; start += 784000) {
        const images = new ort.Tensor("uint8", pixels.slice(start, start + 784000), [1000, 1, 28, 28]);
        const logits = (await session.run({ images })).logits.data;
        for (let row = 0; row < logits.length; row += 10) {
            const values = logits.slice(row, row + 10);
            guesses.push(values.indexOf(Math.max(...values)));
        }
    }
    return guesses;
})().then(done, (error) => done(String(error)));
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Return a folder with a run that reads digits, and its ONNX files in all dtypes."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        here.setenv("MNIST_AMP_DATA__DATA_DIR", str(data_dir))
        main(["fit", *QUICK])
        main(["export", "--formats=[onnx]", f"--dtypes=[{','.join(ALLOWED)}]"])
    return folder


@pytest.fixture
def files(exported: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Go to that folder; returns the files by dtype."""
    monkeypatch.chdir(exported)
    return {dtype: FOLDER / f"model-{dtype}.onnx" for dtype in ALLOWED}


@pytest.fixture
def images(data_dir: Path) -> NDArray[np.uint8]:
    loaded: NDArray[np.uint8] = mnist.load(data_dir, train=False)[0].unsqueeze(1).numpy()
    return loaded


def guesses_of(file: Path, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    guesses: NDArray[np.int64] = session.run(["logits"], {"images": images})[0].argmax(axis=1)
    return guesses


def run_block(code: str, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    names: dict[str, Any] = {"images": images}
    exec(compile(code, "runtimes.md", "exec"), names)
    guesses: NDArray[np.int64] = names["guesses"]
    return guesses


def test_python(files: dict[str, Path], images: NDArray[np.uint8], data_dir: Path) -> None:
    guesses = run_block(blocks("python")[0], images)
    *_, record = json.loads((FOLDER / "results.json").read_text())["files"]
    labels = mnist.load(data_dir, train=False)[1].numpy()
    assert record["file"] == "model-int8.onnx"
    assert abs(int((guesses == labels).sum()) - record["accuracy"]["correct"]) <= ALLOWED["int8"]


def test_opencv(files: dict[str, Path], images: NDArray[np.uint8]) -> None:
    needs("cv2")
    code = blocks("python")[1]
    for dtype in ("float32", "float16"):
        guesses = run_block(code.replace("model-float32", f"model-{dtype}"), images)
        assert (guesses != guesses_of(files[dtype], images)).sum() <= ALLOWED[dtype], dtype


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_opencv_does_not_read_these(files: dict[str, Path], images: NDArray[np.uint8], dtype: str) -> None:
    """If this fails, OpenCV has learnt it: change the page."""
    needs("cv2")
    import cv2

    try:
        guesses = run_block(blocks("python")[1].replace("model-float32", f"model-{dtype}"), images)
    except cv2.error:
        return
    assert (guesses != guesses_of(files[dtype], images)).sum() > ALLOWED[dtype]  # OpenCV 4


@pytest.fixture
def served(files: dict[str, Path], images: NDArray[np.uint8], tmp_path: Path) -> Iterator[str]:
    """Serve the page of the documentation, made by its own commands; returns the address."""
    install, serve = blocks("console")[0].splitlines()
    assert serve == "python -m http.server"
    in_ci = os.environ.get("CI_INTEGRATIONS") == "1"
    npm = shutil.which("npm")
    if npm is None:
        (pytest.fail if in_ci else pytest.skip)("needs npm in PATH")
    done = subprocess.run([npm, *install.split()[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if done.returncode:
        (pytest.fail if in_ci else pytest.skip)(f"npm can't install onnxruntime-web: {done.stderr}")
    for file in files.values():
        shutil.copy2(file, tmp_path)
    (tmp_path / "index.html").write_text(blocks("html")[0], encoding="utf-8")
    (tmp_path / "images.bin").write_bytes(images.tobytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
    shutil.rmtree(tmp_path / "node_modules")  # 150 MB


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Print nothing."""


def test_browser(served: str, files: dict[str, Path], images: NDArray[np.uint8], tmp_path: Path) -> None:
    browser = start_browser(tmp_path / "browser")
    try:
        browser.set_script_timeout(120)
        browser.get(served)
        expected = {dtype: guesses_of(file, images) for dtype, file in files.items()}
        for index in (0, 1, 2):
            Image.fromarray(images[index, 0]).save(tmp_path / f"{index}.png")
            browser.find_element(By.TAG_NAME, "input").send_keys(str(tmp_path / f"{index}.png"))
            shown = text_to_be_present_in_element((By.TAG_NAME, "output"), str(expected["int8"][index]))
            WebDriverWait(browser, 30).until(shown)
        for dtype, allowed in ALLOWED.items():
            guesses = browser.execute_async_script(READ_ALL, f"model-{dtype}.onnx")
            assert isinstance(guesses, list), guesses
            assert (np.array(guesses) != expected[dtype]).sum() <= allowed, dtype
    finally:
        browser.quit()


@pytest.mark.parametrize(("version", "read"), [("1.8.0", {"float32", "float16", "int8"}), ("1.15.0", set(ALLOWED))])
def test_old_versions_of_onnxruntime(
    files: dict[str, Path], images: NDArray[np.uint8], version: str, read: set[str]
) -> None:
    try:
        found = old_onnxruntime.compare(version, list(files.values()), images[: old_onnxruntime.IMAGES])
    except old_onnxruntime.UnavailableError as error:
        pytest.skip(f"onnxruntime {version}: {error}")
    assert {name for name, comparison in found.items() if comparison.error is None} == {
        f"model-{dtype}.onnx" for dtype in read
    }
    assert max(comparison.guesses for comparison in found.values()) <= 1
