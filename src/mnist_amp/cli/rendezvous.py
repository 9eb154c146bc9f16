"""The meeting of the processes that a launcher has started, before torch connects them.

torch's own wait is in C++, prints nothing, and lets no signal through. This one says what it waits for, and the first
Ctrl-C or SIGTERM ends it.
"""

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mnist_amp import errors
from mnist_amp.errors import RequestError, RunError
from mnist_amp.wording import counted

LIMIT = 600.0  # seconds to wait for the others
QUIET = 3.0  # seconds before the wait is reported
PAUSE = 0.1
SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


class Place(NamedTuple):
    """Where processes meet: the address and the port of the first one, their number, and which one this is."""

    host: str
    port: int
    rank: int
    world_size: int


def meet(place: Place, limit: float = LIMIT) -> TCPStore:
    """Wait until all processes of a run have started.

    Args:
        place: where they meet.
        limit: seconds to wait.

    Returns:
        The store of the meeting. The first process serves it, and torch uses the same server later, so it must be kept.

    Raises:
        RequestError: the address is unknown.
        RunError: not all processes came, or the port is in use.
    """
    first, errors.prints = errors.prints, True  # nobody else can report why this process waits
    wait = Wait(place, limit)
    store = _connect(place, wait)
    store.add("mnist_amp/arrived", 1)
    while (arrived := store.add("mnist_amp/arrived", 0)) < place.world_size:
        missing = counted(place.world_size - arrived, "process")
        wait.pause(f"{missing} of {place.world_size} to connect to {place.host}:{place.port}", prints=place.rank == 0)
    errors.prints = first
    return store


class Wait:
    """A wait that reports once what it waits for, and ends after a limit.

    Args:
        place: named in the messages.
        limit: seconds.
        clock: returns seconds.
    """

    def __init__(self, place: Place, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.place, self.limit, self.clock = place, limit, clock
        self.started, self.reported = clock(), False

    def pause(self, waits_for: str, *, prints: bool = True) -> None:
        """Wait a moment.

        Raises:
            RunError: the limit is reached.
        """
        waited = self.clock() - self.started
        if waited > self.limit:
            raise RunError(
                f"the processes of this run did not meet within {self.limit:.0f} s: this one (rank {self.place.rank}) "
                f"has waited for {waits_for}. Start all {self.place.world_size}, with the same MASTER_ADDR and "
                "MASTER_PORT; to run in one process, remove the variables of the launcher."
            )
        if waited > QUIET and prints and not self.reported:
            self.reported = True
            sys.stderr.write(f"mnist-amp: waiting for {waits_for} (at most {self.limit:.0f} s; Ctrl-C ends it)\n")
        time.sleep(PAUSE)


def _connect(place: Place, wait: Wait) -> TCPStore:
    timeout = timedelta(seconds=wait.limit)
    try:
        socket.getaddrinfo(place.host, place.port)
    except OSError as error:
        raise RequestError(
            f"MASTER_ADDR is {place.host}, which is not the address of a machine that can be found: {error}."
        ) from error
    if place.rank == 0:
        try:
            return TCPStore(
                place.host, place.port, place.world_size, True, timeout, wait_for_workers=False, multi_tenant=True
            )
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise RunError(
                f"the first process can't listen at {place.host}:{place.port} (MASTER_ADDR, MASTER_PORT). The port may "
                f"be in use, or the address may be another machine's: {text}"
            ) from error
    while not _answers(place):
        wait.pause(f"the first process at {place.host}:{place.port}")
    return TCPStore(place.host, place.port, place.world_size, False, timeout)


def _answers(place: Place) -> bool:
    """Whether the first process listens."""
    try:
        socket.create_connection((place.host, place.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def use_interface_to(host: str, env: MutableMapping[str, str]) -> None:
    """Have gloo use the network interface that leads to the first node, unless the user chose one.

    Otherwise gloo takes the address of this machine's name, which is often 127.0.0.1. No other node can reach that.
    """
    if {"GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"} & set(env):
        return
    if (interface := interface_to(host)) is not None:
        env["GLOO_SOCKET_IFNAME"] = interface


def interface_to(host: str) -> str | None:
    """Return the name of the network interface that leads to a host; None if it is unknown, as on other systems."""
    try:
        import fcntl  # not on Windows

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            address = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # an interface without an address
                    request = struct.pack("256s", name.encode())
                    if fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24] == address:
                        return name
    except (ImportError, OSError):
        pass
    return None
