"""A pool of threads for work on images, which leaves Python's lock while it reads and decodes."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = min(8, os.cpu_count() or 1)
WAITING = 1024  # items that the pool has at a time; it takes about 2 kB of memory for each


def map_in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results in the order of the items. The first error, in that order, ends the work and is raised."""
    pool, left = ThreadPoolExecutor(THREADS), iter(items)
    try:
        while some := list(islice(left, WAITING)):
            yield from pool.map(work, some)
    finally:
        pool.shutdown(cancel_futures=True)
