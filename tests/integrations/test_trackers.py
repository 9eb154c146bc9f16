"""Runs that are tracked by an MLflow server with SQLite, and by W&B offline."""

import csv
import math
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_amp.runs import checkpoint_files
from tests.conftest import Refused, Run, command
from tests.integrations.packages import needs
from tests.integrations.servers import MLflowServer, Outage

needs("mlflow", "wandb")

import mlflow  # noqa: E402
from wandb.proto import wandb_internal_pb2  # noqa: E402

FIT = ("fit", "--config=smoke.yaml", "--config=mlflow.yaml")
RUN = Path("lightning_logs/version_0")
BLOCK, WHOLE, LAST = 32768, 1, 4  # of a log of LevelDB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    server = MLflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of the server, which has no runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    client = mlflow.MlflowClient(server.url)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)
    return client


def runs(client: Any) -> list[Any]:
    """Return the runs, oldest first."""
    experiment = client.get_experiment_by_name("mnist-amp")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


def rows(path: Path, metric: str) -> list[tuple[int, float]]:
    """Return the steps and values of a metric in a CSV file."""
    with path.open(newline="") as file:
        return [(int(row["step"]), float(row[metric])) for row in csv.DictReader(file) if row.get(metric)]


def history(client: Any, run: Any, metric: str) -> list[tuple[int, float]]:
    return sorted((entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, metric))


@pytest.mark.drawn
def test_mlflow_gets_all_of_a_run_and_its_test(run: Run, client: Any) -> None:
    printed = run(*FIT, "--optimizer.lr=0.002", "--trainer.max_epochs=2")
    tested = run("test", "--config=mlflow.yaml")
    (tracked,) = runs(client)
    assert f"\nlogs      MLFlowLogger, run {tracked.info.run_id}\n" in tested
    assert f"\nlogs      MLFlowLogger, run {tracked.info.run_id}\n" in printed
    assert tracked.info.status == "FINISHED"
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    parameters = tracked.data.params
    for group in ("trainer", "data", "model", "checkpoint"):
        for key, value in config[group].items():
            if key != "logger":
                assert parameters[f"{group}.{key}"] == str(value), key
    assert (parameters["optimizer.lr"], parameters["seed_everything"]) == ("0.002", "42")
    assert (parameters["effective.precision"], parameters["trainer.precision"]) == ("bf16-mixed", "16-mixed")
    assert {"versions.torch", "versions.lightning", "effective.device", "trainer.logger"} <= parameters.keys()
    best = checkpoint_files.read(RUN / "checkpoints" / "best.ckpt")["callbacks"]["RunCheckpoint"]["best_model_score"]
    assert tracked.data.tags["best_checkpoint"] == str((RUN / "checkpoints" / "best.ckpt").absolute())
    assert tracked.data.metrics["best/val_accuracy"] == best.item()
    for metric in ("train_loss_step", "train_loss", "val_loss", "val_accuracy"):
        assert history(client, tracked, metric) == rows(RUN / "metrics.csv", metric)
    assert [step for step, _ in history(client, tracked, "test_accuracy")] == [16]
    assert tracked.info.run_name == "version_0"
    files = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert files == {
        "config.yaml",
        "curves.png",
        "metrics.json",
        "confusion_matrix.png",
        "misclassified.png",
        "reliability.png",
    }


def test_a_resumed_run_has_the_whole_history_and_names_the_old_one(run: Run, client: Any) -> None:
    run(*FIT)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    old, new = runs(client)
    assert new.data.params["resumed_from_run"] == old.info.run_id
    assert new.data.params["resumed_from"] == "lightning_logs/version_0/checkpoints/last.ckpt"
    for metric in ("train_loss_step", "val_loss"):
        found = history(client, new, metric)
        assert found == rows(Path("lightning_logs/version_1/metrics.csv"), metric)
        assert found[: len(found) // 3] == history(client, old, metric)
    assert len(history(client, new, "train_loss_step")) == 24


def test_a_test_at_another_server_begins_a_run(run: Run, client: Any, tmp_path: Path) -> None:
    run(*FIT)
    (trained,) = runs(client)
    warnings: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_amp.cli.logger_settings.warn", warnings.append)
        run("test", "--config=mlflow.yaml", f"--trainer.logger.tracking_uri=sqlite:///{tmp_path}/other.db")
    assert warnings == [
        "MLFlowLogger begins a new run, because its settings do not lead to "
        f"{trained.info.run_id}, the run that trained."
    ]
    (tested,) = runs(mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db"))
    assert tested.data.params["checkpoint"] == str(RUN / "checkpoints" / "best.ckpt")
    assert "test_accuracy" in tested.data.metrics


def test_a_run_that_does_not_exist_is_refused(client: Any, refused: Refused) -> None:
    address = client.tracking_uri
    assert refused(*FIT, "--trainer.logger.run_id=abc") == (
        f"mnist-amp: error: trainer.logger.run_id is abc, but {address} has no such run.\n"
    )


def test_a_run_that_fails_has_its_best_checkpoint(run: Run, client: Any) -> None:
    with pytest.raises(SystemExit):
        run(*FIT, "--trainer.max_epochs=3", "--trainer.callbacks=tests.integrations.servers.Broken")
    (tracked,) = runs(client)
    assert tracked.info.status == "FAILED"
    assert tracked.data.tags["best_checkpoint"] == str((RUN / "checkpoints" / "best.ckpt").absolute())


def test_a_run_that_is_named_is_continued(run: Run, client: Any) -> None:
    run(*FIT)
    (old,) = runs(client)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2", f"--trainer.logger.run_id={old.info.run_id}")
    (both,) = runs(client)
    # MLflow never changes a parameter
    assert both.data.params["trainer.max_epochs"] == "1"
    assert [step for step, _ in history(client, both, "train_loss_step")] == list(range(16))


def test_two_processes_are_one_run(client: Any, server: MLflowServer, tmp_path: Path, data_dir: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": server.url, "MNIST_AMP_DATA__DATA_DIR": str(data_dir)}
    command(*FIT, "--config=ddp-cpu.yaml", cwd=tmp_path, env=env)
    (tracked,) = runs(client)
    assert tracked.info.status == "FINISHED"
    metrics = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    assert history(client, tracked, "val_loss") == rows(metrics, "val_loss")
    assert {file.path for file in client.list_artifacts(tracked.info.run_id)} == {"config.yaml", "curves.png"}


def test_a_server_that_comes_back_has_all(
    run: Run, client: Any, server: MLflowServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Outage, "server", server, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    callback = "--trainer.callbacks=tests.integrations.servers.Outage"
    with pytest.MonkeyPatch.context() as patch:
        warnings: list[str] = []
        patch.setattr("mnist_amp.runs.guarded_logger.warn", warnings.append)
        run(*FIT, callback, "--trainer.max_epochs=3")
    (warning,) = warnings
    assert warning.startswith("MLFlowLogger failed. The run continues without it, and its own files are complete. ")
    (tracked,) = runs(client)
    assert tracked.info.status == "FINISHED"
    for metric in ("train_loss_step", "val_loss"):
        found = rows(RUN / "metrics.csv", metric)
        assert len(found) in (24, 3)
        assert history(client, tracked, metric) == found


def test_a_server_that_is_not_there_does_not_lose_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    monkeypatch.setattr("mnist_amp.runs.guarded_logger.warn", warnings.append)
    printed = run(*FIT, "--trainer.logger.tracking_uri=http://127.0.0.1:9")
    assert len(warnings) == 1
    assert "\nlogs      MLFlowLogger (failed)\n" in printed
    assert len(rows(RUN / "metrics.csv", "train_loss_step")) == 8
    assert (RUN / "checkpoints" / "best.ckpt").is_file()


def records(folder: Path) -> Iterator[Any]:
    """Yield the records of a run in a folder of W&B.

    The file is a log of LevelDB: blocks of 32 KiB, in each parts of records, with a head of 7 bytes (checksum, length,
    and whether the part is the whole record, its first, middle or last one). The file begins with 7 bytes of its own.
    """
    (path,) = folder.glob("*.wandb")
    content, place, data = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # no place for a head
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        data += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            data = b""
            yield record


def finished(folder: Path) -> list[Any]:
    """Return the records of a run when its last one is there: W&B's own process writes them a moment later."""
    deadline = time.monotonic() + 60
    while True:
        found = list(records(folder)) if list(folder.glob("*.wandb")) else []
        if any(record.HasField("exit") for record in found):
            return found
        assert time.monotonic() < deadline
        time.sleep(0.1)


def items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): yaml.safe_load(item.value_json) for item in updates}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")  # seconds for its own process, on a busy machine
    monkeypatch.setattr("mnist_amp.runs.guarded_logger.warn", pytest.fail)


@pytest.mark.drawn
def test_wandb_gets_all_of_a_run_and_its_test(run: Run, offline: None) -> None:
    printed = run("fit", "--config=smoke.yaml", "--config=wandb.yaml")
    run("test", "--config=wandb.yaml")
    identifier = re.search(r"\nlogs      WandbLogger, run (\w+)\n", printed)
    assert identifier is not None
    fit, test = sorted(Path("wandb").glob(f"offline-run-*-{identifier[1]}"))  # of one run, when they are uploaded
    found = finished(fit)
    settings = items(update for record in found for update in record.run.config.update)
    settings |= items(update for record in found for update in record.config.update)
    assert settings["optimizer.lr"] == 0.001
    assert settings["effective.precision"] == "bf16-mixed"
    assert settings["trainer.max_epochs"] == 1
    history = [items(record.history.item) for record in found if record.HasField("history")]
    losses = [(row["trainer/global_step"], row["train_loss_step"]) for row in history if "train_loss_step" in row]
    assert [step for step, _ in losses] == list(range(8))
    for (_, logged), (_, value) in zip(losses, rows(RUN / "metrics.csv", "train_loss_step"), strict=True):
        assert math.isclose(logged, value, rel_tol=1e-6)
    summary = items(update for record in found for update in record.summary.update)
    assert summary["best_checkpoint"] == str((RUN / "checkpoints" / "best.ckpt").absolute())
    copy = fit / "files" / "version_0" / "config.yaml"
    assert copy.read_bytes() == (RUN / "config.yaml").read_bytes()
    assert not copy.is_symlink()
    assert not (fit / "files" / "config.yaml").is_symlink()  # W&B writes this file, with settings in a form of its own
    assert list((fit / "files" / "media" / "images").glob("curves_*.png"))
    assert list((test / "files" / "media" / "images").glob("confusion_matrix_*.png"))
    scored = [items(record.history.item) for record in finished(test) if record.HasField("history")]
    assert any("test_accuracy" in row for row in scored)


def test_two_runs_of_wandb_in_one_process(run: Run, offline: None) -> None:
    for _ in range(2):
        run("fit", "--config=smoke.yaml", "--config=wandb.yaml")
    folders = list(Path("wandb").glob("offline-run-*"))
    assert len(folders) == 2
    for folder in folders:
        assert sum(record.HasField("history") for record in finished(folder)) >= 10
