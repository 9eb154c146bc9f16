"""The launcher that has started this process: torchrun, srun, mpirun, or variables that were set by hand.

A launcher starts the same command several times, and tells each process its place by environment variables. These
processes are one run. This module reads the variables, and imports neither torch nor Lightning, so it also tells which
process prints for all of them.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from mnist_amp.errors import RequestError

# set for the processes that a run starts itself, to the process that has started them
PARENT = "_MNIST_AMP_PARENT"
SEED = "_MNIST_AMP_SEED"  # and the seed that it has chosen at random
BY_HAND = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
OPEN_MPI = "OMPI_COMM_WORLD_"
# all variables from which Lightning or torch could conclude that there are other processes
VARIABLES = re.compile(
    rf"({'|'.join(BY_HAND)}|MASTER_ADDR|MASTER_PORT|PMI_\w+|MPI_LOCAL\w+|(TORCHELASTIC|SLURM|{OPEN_MPI[:-1]})_\w+)"
)
DEFAULT_PORT = 29500  # torch's


@dataclass(frozen=True)
class Launch:
    """The processes of a run that a launcher has started.

    Attributes:
        launcher: its name, such as `torchrun`.
        nodes: number of nodes.
        per_node: processes on each node.
        rank: number of this process, from 0.
        local_rank: its number on its node, from 0.

    Example:
        >>> print(Launch("torchrun", nodes=2, per_node=4, rank=5, local_rank=1))
        2 nodes x 4 processes, started by torchrun
    """

    launcher: str
    nodes: int
    per_node: int
    rank: int
    local_rank: int

    def __str__(self) -> str:
        nodes = f"{self.nodes} nodes x " if self.nodes > 1 else ""
        return f"{nodes}{self.per_node} process{'' if self.per_node == 1 else 'es'}, started by {self.launcher}"

    @property
    def world_size(self) -> int:
        return self.nodes * self.per_node

    @property
    def node_rank(self) -> int:
        return self.rank // self.per_node


def detect(env: Mapping[str, str], parent: int | None = None) -> Launch | None:
    """Return how a launcher has started this process; None for a process that is alone.

    Args:
        env: the environment variables.
        parent: the process that has started this one; by default the real one.

    Raises:
        RequestError: the variables are incomplete or contradict each other, so that other processes would be waited
            for in vain.
    """
    if is_child(env, parent):
        return None
    if "TORCHELASTIC_RUN_ID" in env:
        launch = _from_variables(env, "torchrun")
    elif f"{OPEN_MPI}SIZE" in env:
        launch = _from_mpi(env, OPEN_MPI + "SIZE", OPEN_MPI + "RANK", OPEN_MPI + "LOCAL_RANK", OPEN_MPI + "LOCAL_SIZE")
    elif _is_slurm_job(env):
        launch = _from_slurm(env)
    elif {"PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"} <= set(env):
        launch = _from_mpi(env, "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    elif {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & set(env):
        launch = _from_variables(env, "hand")
    else:
        return None
    return None if launch.world_size == 1 else _checked(launch, env)


def is_child(env: Mapping[str, str], parent: int | None = None) -> bool:
    """Whether a run on several devices has started this process itself."""
    return "LOCAL_RANK" in env and env.get(PARENT) == str(os.getppid() if parent is None else parent)


def is_first(env: Mapping[str, str], parent: int | None = None) -> bool:
    """Whether this process prints for all processes of its run."""
    if is_child(env, parent):
        return False
    try:
        launch = detect(env, parent)
    except RequestError:
        return True
    return launch is None or launch.rank == 0


def clear(env: MutableMapping[str, str]) -> None:
    """Remove the variables of all launchers, for a command that runs in one process."""
    for name in filter(VARIABLES.fullmatch, list(env)):
        del env[name]


def prepare(launch: Launch, env: MutableMapping[str, str]) -> None:
    """Set the variables from which Lightning and torch learn the same."""
    if launch.launcher == "srun":
        # Lightning refuses several tasks without it, and srun sets it only if it is asked for
        env["SLURM_NTASKS_PER_NODE"] = str(launch.per_node)
        env["SLURM_NTASKS"], env["SLURM_NNODES"] = str(launch.world_size), str(launch.nodes)
        return
    places = {"RANK": launch.rank, "LOCAL_RANK": launch.local_rank, "NODE_RANK": launch.node_rank}
    env.update({name: str(value) for name, value in {**places, "WORLD_SIZE": launch.world_size}.items()})
    env.setdefault("MASTER_ADDR", "127.0.0.1")
    # on one node the processes of a launcher have the same parent
    env.setdefault("MASTER_PORT", str(DEFAULT_PORT + os.getppid() % 10_000))


def _from_variables(env: Mapping[str, str], launcher: str) -> Launch:
    """Read RANK and WORLD_SIZE, and those of the node; without these, there is one node."""
    if missing := [name for name in ("RANK", "WORLD_SIZE") if name not in env]:
        raise _incomplete(env, missing)
    rank, world = _number(env, "RANK"), _number(env, "WORLD_SIZE", least=1)
    local_rank = _number(env, "LOCAL_RANK") if "LOCAL_RANK" in env else rank
    if "LOCAL_WORLD_SIZE" in env:
        per_node = _number(env, "LOCAL_WORLD_SIZE", least=1)
    elif local_rank == rank and int(env.get("NODE_RANK") or 0) == 0:
        per_node = world
    else:
        raise RequestError(
            f"RANK is {rank} and LOCAL_RANK is {local_rank}, so there are several nodes. Set LOCAL_WORLD_SIZE, the "
            "number of processes on each of them, or use torchrun."
        )
    return _made(launcher, world, per_node, rank, local_rank, env)


def _from_mpi(env: Mapping[str, str], size: str, rank: str, local_rank: str, local_size: str) -> Launch:
    world, per_node = _number(env, size, least=1), _number(env, local_size, least=1)
    return _made("mpirun", world, per_node, _number(env, rank), _number(env, local_rank), env)


def _is_slurm_job(env: Mapping[str, str]) -> bool:
    """Whether SLURM has started this process, and not an interactive shell.

    Lightning tells them apart by the name of the job. srun may also start several tasks from such a shell.
    """
    interactive = env.get("SLURM_JOB_NAME") in ("bash", "interactive")
    by_srun = env.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return by_srun or ("SLURM_NTASKS" in env and not interactive)


def _from_slurm(env: Mapping[str, str]) -> Launch:
    if "SLURM_STEP_NUM_TASKS" not in env:
        tasks = _number(env, "SLURM_NTASKS", least=1)
        if tasks == 1:
            return Launch("srun", 1, 1, 0, 0)
        raise RequestError(
            f"this SLURM job has {tasks} tasks (SLURM_NTASKS), but srun has not started this process, so the others "
            "are missing. Begin the command with srun, or remove SLURM_NTASKS to run in one process."
        )
    world, nodes = _number(env, "SLURM_STEP_NUM_TASKS", least=1), _number(env, "SLURM_STEP_NUM_NODES", least=1)
    per_node = -(-world // nodes)
    return _made("srun", world, per_node, _number(env, "SLURM_PROCID"), _number(env, "SLURM_LOCALID"), env)


def _made(launcher: str, world: int, per_node: int, rank: int, local_rank: int, env: Mapping[str, str]) -> Launch:
    if world % per_node:
        raise RequestError(
            f"{_by(launcher)} has started {world} processes, which are not {per_node} on each node. Start as many "
            "on each."
        )
    if rank >= world:
        raise RequestError(
            f"the number of this process is {rank}, but there are {world} processes, which are numbered from 0. The "
            f"variables of {_by(launcher)} contradict each other; start the command again."
        )
    if local_rank != rank % per_node:
        raise RequestError(
            f"the process {rank} of {world}, with {per_node} on each node, can't be number {local_rank} on its "
            f"node. The variables of {_by(launcher)} contradict each other; start the command again."
        )
    return Launch(launcher, world // per_node, per_node, rank, local_rank)


def _by(launcher: str) -> str:
    return "the environment" if launcher == "hand" else launcher


def _checked(launch: Launch, env: Mapping[str, str]) -> Launch:
    """Refuse a launch whose processes can't find each other."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]
    if missing and (launch.launcher == "hand" or (launch.launcher == "mpirun" and launch.nodes > 1)):
        source = "WORLD_SIZE" if launch.launcher == "hand" else "mpirun"
        raise RequestError(
            f"there are {launch.world_size} processes by {source}, but without {' and '.join(missing)} they can't find "
            "each other. Set the address of the first node and a free port on it, the same for all, or use torchrun. "
            "To run in one process, remove RANK, WORLD_SIZE and LOCAL_RANK."
        )
    port = env.get("MASTER_PORT", "1")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise RequestError(f"MASTER_PORT is {port!r} in the environment, but must be a port from 1 to 65535.")
    return launch


def _incomplete(env: Mapping[str, str], missing: list[str]) -> RequestError:
    """Return the error for variables of a launcher of which some are missing."""
    given = [name for name in env if VARIABLES.fullmatch(name) and not name.startswith("MASTER_")]
    first = [name for name in BY_HAND if name in given] or sorted(given)[:3]
    return RequestError(
        f"the environment has {', '.join(f'{name}={env[name]}' for name in first)}, but not {' and '.join(missing)}. A "
        "launcher sets them for each process. Remove them to run in one process, or use torchrun."
    )


def _number(env: Mapping[str, str], name: str, least: int = 0) -> int:
    if name not in env:
        raise _incomplete(env, [name])
    text = env[name]
    if not re.fullmatch(r"\d+", text) or int(text) < least:
        raise RequestError(
            f"{name} is {text!r} in the environment, but must be a whole number of at least {least}. A launcher sets "
            "it; remove it to run in one process."
        )
    return int(text)
