"""Two nodes: torchrun is started twice, in two network namespaces with addresses of their own if the test may."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.test_launchers import SMOKE, assert_same_run, free_port, mnist_amp, start, torchrun, two_devices
from tests.cli.test_signals import wait_for

__all__ = ["two_devices"]  # a fixture
ADDRESSES = ("10.213.77.1", "10.213.77.2")


class Nodes(NamedTuple):
    """The beginning of each node's programs, and the address of the first node."""

    prefixes: tuple[tuple[str, ...], tuple[str, ...]]
    address: str

    def start(self, *args: str, cwd: Path) -> list[subprocess.Popen[str]]:
        port = str(free_port())
        found = []
        for rank, prefix in enumerate(self.prefixes):
            master = (f"--master_addr={self.address}", f"--master_port={port}")
            options = ("--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1", *master)
            found.append(start(*prefix, *torchrun(*args, options=options), cwd=cwd))
        return found

    def run(self, *args: str, cwd: Path) -> str:
        """Run a command on both nodes, and return what the first one prints."""
        both = self.start(*args, cwd=cwd)
        ended = [process.communicate(timeout=300) for process in both]
        assert [process.returncode for process in both] == [0, 0], ended
        assert ended[1][0] == ""
        return ended[0][0]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        yield Nodes(((), ()), "127.0.0.1")
        return
    names = [f"mnist-amp-{os.getpid()}-{rank}" for rank in (0, 1)]
    try:
        _connect(names)
        yield Nodes((("ip", "netns", "exec", names[0]), ("ip", "netns", "exec", names[1])), ADDRESSES[0])
    except subprocess.CalledProcessError:  # a container may not make namespaces
        yield Nodes(((), ()), "127.0.0.1")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _connect(names: list[str]) -> None:
    """Make two network namespaces with a cable between them."""
    cable = [f"ma{os.getpid() % 100_000}{rank}" for rank in (0, 1)]
    commands = [
        *(f"netns add {name}" for name in names),
        f"link add {cable[0]} type veth peer name {cable[1]}",
        *(f"link set {end} netns {name}" for end, name in zip(cable, names, strict=True)),
        *(f"-n {name} addr add {ip}/24 dev {end}" for name, end, ip in zip(names, cable, ADDRESSES, strict=True)),
        *(f"-n {name} link set {end} up" for name, end in zip(names, cable, strict=True)),
        *(f"-n {name} link set lo up" for name in names),
    ]
    for line in commands:
        subprocess.run(["ip", *line.split()], check=True, capture_output=True)


def test_two_nodes_are_one_run(nodes: Nodes, tmp_path: Path, data_dir: Path, two_devices: Path) -> None:
    """Training is that of two processes on one node, and evaluation that of one process, to the last bit."""
    data = f"--data.data_dir={data_dir}"
    out = nodes.run("fit", *SMOKE, data, cwd=tmp_path)
    assert "\nprocesses  2 nodes x 1 process, started by torchrun\n" in out
    assert_same_run(tmp_path, two_devices)
    nodes.run("test", data, "--ckpt_path=last", cwd=tmp_path)
    process = start(*mnist_amp("test", data, "--ckpt_path=last"), cwd=tmp_path)
    assert process.communicate(timeout=300)[1] == ""
    reports = sorted(tmp_path.glob("lightning_logs/version_0/test_last*/metrics.json"))
    found = [json.loads(report.read_text()) for report in reports]
    assert [report["device"] for report in found if report["device"].startswith("2 x ")]
    assert len(found) == 2
    assert {(report["loss"], report["accuracy"]) for report in found} == {(found[0]["loss"], found[0]["accuracy"])}


def test_a_killed_node_ends_the_other(nodes: Nodes, tmp_path: Path, data_dir: Path) -> None:
    data = f"--data.data_dir={data_dir}"
    endless = ("--trainer.limit_train_batches=400", "--trainer.max_epochs=9999", "--checkpoint.every_n_train_steps=10")
    own = "--trainer.callbacks=tests.interrupt.ProcessIds"
    first, second = nodes.start("fit", *SMOKE, *endless, own, data, cwd=tmp_path)
    wait_for(tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", first)
    second.kill()
    os.kill(int((tmp_path / "pid_1").read_text()), signal.SIGKILL)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert (
        "mnist-amp: error: another process of this run was killed or failed, so this one has ended. If the run has "
        "saved a checkpoint, this resumes it, in as many processes or in another number: "
        "mnist-amp fit --ckpt_path last ("
    ) in err
    second.communicate()
    more = ("--trainer.callbacks=null", "--trainer.max_time=00:00:00:01")
    process = start(*mnist_amp("fit", "--ckpt_path=last", data, *more), cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert re.search(r"\nchanged     .*trainer\.num_nodes 2 -> 1", out)
    assert (
        "mnist-amp: warning: the checkpoint is from 2 processes, and now there are 1. The rest of the epoch trains on "
        "the images that are left, but in other batches, so the run does not resume exactly.\n"
    ) in err
