import threading
from pathlib import Path

from mnist_amp.runs import folders


def test_creates_the_next_number(tmp_path: Path) -> None:
    for other in ("version_9", "version_10", "version_x", "notes"):
        (tmp_path / "lightning_logs" / other).mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_99").touch()  # not a folder
    assert folders.create_run_dir(tmp_path) == tmp_path / "lightning_logs" / "version_11"


def test_folders_created_at_the_same_time_are_different(tmp_path: Path) -> None:
    created: list[Path] = []
    threads = [threading.Thread(target=lambda: created.append(folders.create_run_dir(tmp_path))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in created) == sorted(f"version_{n}" for n in range(20))


def test_the_results_of_other_commands_are_numbered_apart(tmp_path: Path) -> None:
    folders.create_run_dir(tmp_path)
    assert [folders.create_run_dir(tmp_path, "profile") for _ in range(2)] == [
        tmp_path / "lightning_logs" / "profile" / f"version_{number}" for number in (0, 1)
    ]
    assert folders.create_run_dir(tmp_path) == tmp_path / "lightning_logs" / "version_1"
