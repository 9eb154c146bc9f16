"""The notebook, and interrupted cells, in a kernel of Jupyter."""

import os
import re
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.packages import needs

needs("nbclient", "ipykernel")

import nbformat  # noqa: E402
from jupyter_client import KernelManager  # noqa: E402
from jupyter_client.blocking import BlockingKernelClient  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

from mnist_amp.runs import checkpoint_files  # noqa: E402
from tests.conftest import Run  # noqa: E402
from tests.project.documents import ROOT  # noqa: E402

QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"


@pytest.fixture(autouse=True)
def environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let kernels find the command, import this package, and write into the test's directory alone."""
    monkeypatch.setenv("PATH", os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / ".jupyter"))


def texts(cell: Any, stream: str) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == stream)


def test_the_quickstart(tmp_path: Path) -> None:
    notebook = nbformat.read(QUICKSTART, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.source: cell for cell in notebook.cells if cell.cell_type == "code"}
    (training,) = (cell for source, cell in cells.items() if "run = fit(" in source)
    epochs = [line for line in texts(training, "stdout").splitlines() if line.startswith("Epoch ")]
    assert [line.partition(":")[0] for line in epochs] == ["Epoch 0", "Epoch 1"]  # a line each, and no bar
    printed = "".join(texts(cell, "stderr") for cell in cells.values())
    assert re.fullmatch(r"(mnist-amp: \d+ of \d+ measurements are done\n)+", printed)  # no warnings
    (in_shell,) = (cell for source, cell in cells.items() if source == "!mnist-amp test")
    assert " of 10,000 images" in texts(in_shell, "stdout")
    assert len(re.findall("Testing DataLoader", texts(in_shell, "stdout"))) < 60  # of 157 batches
    plots = [output for cell in cells.values() for output in cell.outputs if "text/html" in output.get("data", {})]
    assert [output.data["text/html"].count("<img ") for output in plots] == [1, 2, 1]  # of fit, compare and predict
    (read,) = (cell for source, cell in cells.items() if source.startswith("read = predict("))
    assert "\n7 at " in texts(read, "stdout")
    *_, refused = cells.values()
    assert texts(refused, "stdout") == (
        "there is no option trainer.max_epoch (did you mean trainer.max_epochs?). See mnist-amp fit --help.\n"
    )


def test_the_notebook_is_saved_without_outputs() -> None:
    notebook = nbformat.read(QUICKSTART, as_version=4)
    nbformat.validate(notebook)
    assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


LONG = "'--trainer.max_epochs', -1, '--trainer.callbacks', 'tests.interrupt.Slowly'"


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_cell_leaves_a_checkpoint_to_resume_from(
    kernel: tuple[KernelManager, BlockingKernelClient], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    manager, client = kernel
    execute(client, f"import sys; sys.path.append({str(ROOT)!r}); from mnist_amp.commands import fit")
    saved = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    request = client.execute(f"fit({LONG}, '--checkpoint.every_n_train_steps', 20)")
    wait_for(saved)
    for _ in range(times):
        manager.interrupt_kernel()
    reply = reply_to(client, request)
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    step = checkpoint_files.read(saved)["global_step"]
    if times == 1:
        assert reply["evalue"] == (
            f"stopped by SIGINT after step {step:,}. Its checkpoint is written. "
            f"Resume with: mnist-amp fit --ckpt_path {saved}"
        )
    resumed = f"fit('--ckpt_path', 'last', '--trainer.max_epochs', {step // 860 + 1}, '--trainer.callbacks', None)"
    assert execute(client, f"print({resumed}.folder)")["status"] == "ok"
    last = checkpoint_files.read(Path("lightning_logs/version_1/checkpoints/last.ckpt"))
    assert last["global_step"] == 860 * (step // 860 + 1)


def execute(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    return reply_to(client, client.execute(code))


def reply_to(client: BlockingKernelClient, request: str) -> dict[str, Any]:
    while True:
        reply = client.get_shell_msg(timeout=300)
        if reply["parent_header"]["msg_id"] == request:
            content: dict[str, Any] = reply["content"]
            return content


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.is_file():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
