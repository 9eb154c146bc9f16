"""The processes of a distributed run: how they begin together, and that the first reports if one fails."""

import atexit
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence

import torch.distributed
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mnist_amp import signals
from mnist_amp.cli import launchers
from mnist_amp.cli.arguments import peek
from mnist_amp.cli.launchers import Launch
from mnist_amp.cli.rendezvous import Place, meet, use_interface_to
from mnist_amp.errors import RequestError, UsageError
from mnist_amp.lightning_internals import ChildProcessObserver, replace_process_observer
from mnist_amp.wording import counted

# Processes gain nothing beyond one for each core, and each takes memory of its own. A trial of a distributed run on a
# small machine needs more than that, but not many more.
MOST_PER_CORE = 4
GRACE = 5.0  # seconds that the first process has to notice by itself that another was lost


class Observer(ChildProcessObserver):
    """Ends the first process after another has failed; Lightning's own observer does so before it can report."""

    def on_lost(self) -> None:
        time.sleep(GRACE)  # mostly the process ends by itself meanwhile, and this thread with it
        sys.stderr.write("mnist-amp: error: another process of this run was killed or failed, so this one has ended.\n")


def observe(processes: list[subprocess.Popen[bytes]]) -> None:
    """Watch the processes that this one has started."""
    signals.child_processes.extend(processes)
    Observer(main_pid=os.getpid(), child_processes=processes).start()


def leave_group() -> None:
    """Leave the other processes at the end. Lightning does so for nccl only; a thread of gloo may abort the process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def install_observer() -> None:
    """Have Lightning's launcher start this observer instead of its own, and mark the processes that it starts."""
    atexit.unregister(leave_group)  # a program may run several commands
    atexit.register(leave_group)
    if not launchers.is_child(os.environ):
        os.environ[launchers.PARENT] = str(os.getpid())
    replace_process_observer(observe)


def use_all(launch: Launch, trainer: Namespace, args: Sequence[str]) -> None:
    """Set the devices and nodes of the Trainer to the processes that a launcher has started.

    Args:
        launch: the processes.
        trainer: settings of the Trainer, which are changed.
        args: the command's arguments, without the settings of a checkpoint.

    Raises:
        UsageError: the arguments ask for another number.
    """
    processes = f"{counted(launch.per_node, 'process')} on each node"
    for name, number, have in (
        ("devices", launch.per_node, processes),
        ("num_nodes", launch.nodes, f"processes on {counted(launch.nodes, 'node')}"),
    ):
        given = peek(args, f"trainer.{name}")
        if given is not None and str(given) not in (str(number), "auto", "-1"):
            raise UsageError(
                f"trainer.{name} is {given}, but there are {have}, started by {launch.launcher}. Leave it out.",
                f"trainer.{name}",
            )
        trainer[name] = number


def check_number(trainer: Trainer) -> None:
    """Refuse to start far more processes on a CPU than it has cores. They would take all of its memory.

    Args:
        trainer: starts a process for each of its devices.

    Raises:
        RequestError: there are too many.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > MOST_PER_CORE * cores:
        raise RequestError(
            f"trainer.devices is {trainer.num_devices}, but this machine has {counted(cores, 'core')}. On a CPU each "
            f"device is a process. More than {MOST_PER_CORE} for each core are refused, because they only take time "
            f"and memory from each other. Give at most {MOST_PER_CORE * cores}; more than {cores} gain nothing."
        )


def choose_seed(launch: Launch | None, num_nodes: int) -> int:
    """Choose a seed at random; a process that a run has started itself gets the seed of that run.

    Args:
        launch: the processes that a launcher has started.
        num_nodes: without a launcher, one process is started by hand on each of these nodes.

    Raises:
        UsageError: there are processes that would each choose another seed, and so train on other images.
    """
    if launchers.is_child(os.environ) and launchers.SEED in os.environ:
        return int(os.environ[launchers.SEED])
    if launch is not None or num_nodes > 1:
        raise UsageError(
            "seed_everything is true, but the processes of this run were started one by one, and would each choose "
            "another seed. Give a number.",
            "seed_everything",
        )
    seed = secrets.randbelow(2**31)
    os.environ[launchers.SEED] = str(seed)
    return seed


def environment_of(launch: Launch) -> list[ClusterEnvironment]:
    """Return the plugin that tells Lightning of a launcher; none for torchrun, which Lightning detects itself.

    It takes srun within an interactive job for a single process.
    """
    if launch.launcher == "torchrun":
        return []
    # the second reads the variables that `launchers.prepare` has set
    return [SLURMEnvironment() if launch.launcher == "srun" else LightningEnvironment()]


def meet_others(launch: Launch | None, num_nodes: int) -> None:
    """Wait for the processes that this one does not start itself.

    Args:
        launch: the processes that a launcher has started.
        num_nodes: without a launcher, one process is started by hand on each of these nodes.

    Raises:
        RequestError: the address where they meet is not known.
        RunError: they do not come.
    """
    nodes = num_nodes if launch is None else launch.nodes
    if nodes > 1 and "MASTER_ADDR" in os.environ:
        use_interface_to(os.environ["MASTER_ADDR"], os.environ)
    if launchers.is_child(os.environ) or (launch is not None and launch.launcher == "torchrun"):
        return  # the process, or torchrun, that has started this one has waited already
    if launch is None:
        if num_nodes == 1:
            return
        place = _place_of_node(num_nodes)
    else:
        (environment,) = environment_of(launch)
        place = Place(environment.main_address, environment.main_port, launch.rank, launch.world_size)
    meetings.append(meet(place))


# the stores of the meetings: torch uses their server
meetings: list[TCPStore] = []


def _place_of_node(num_nodes: int) -> Place:
    names = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if name not in os.environ]:
        raise RequestError(
            f"trainer.num_nodes is {num_nodes}, but {', '.join(missing)} are not set. Use torchrun or srun; or start "
            f"this command on each node, with NODE_RANK (0 to {num_nodes - 1}), and with the address of the first node "
            "and a free port on it as MASTER_ADDR and MASTER_PORT."
        )
    environment = LightningEnvironment()
    return Place(environment.main_address, environment.main_port, environment.node_rank(), num_nodes)
