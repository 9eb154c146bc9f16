"""An MLflow server on this machine, and a callback that stops and starts it within a run."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

PATIENCE = 120  # seconds; a server takes 5 to 30 on a busy machine


class MLflowServer:
    """An MLflow server with its runs in SQLite.

    Args:
        folder: for its database and files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [f"--port={self.port}", "--host=127.0.0.1", "--workers=1"]
        store = [f"--backend-store-uri=sqlite:///{self.folder}/runs.db", f"--artifacts-destination={self.folder}/files"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options, *store],
                stdout=log,
                stderr=log,
                start_new_session=True,  # it starts processes of its own
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Outage(Callback):
    """Stops a server when the second epoch begins, and starts it again after the last one.

    Attributes:
        server: set by the test; a callback that is named by an option gets plain values only.
    """

    server: MLflowServer

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.server.stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.server.start()
