"""The position within an epoch, if a run is resumed with another batch size or another number of processes.

Lightning keeps it as a number of batches. With batches of another size, the same number would stand for other images:
some would be used twice, others never. Here the position is converted, so that the rest of the epoch trains on the
images that are left, each once.
"""

import math
from typing import Any, NamedTuple

from mnist_amp.data.datamodule import IMAGES_AHEAD


class Batches(NamedTuple):
    """The batches of an epoch.

    Attributes:
        size: images of a batch in each process.
        processes: number of processes.
        images: images of an epoch.
        limit: the most batches of an epoch in a process, or a share of them.
    """

    size: int
    processes: int
    images: int
    limit: int | float | None = None

    def count(self, done: int = 0) -> int:
        """Return the number of batches of a process, without the first `done` images."""
        return math.ceil((self.images - done) // self.processes / self.size)

    def longest(self) -> int:
        """Return the number of batches of an epoch, which may be limited."""
        count = self.count()
        if self.limit is None:
            return count
        return min(count, self.limit) if isinstance(self.limit, int) else int(count * self.limit)


def convert_position(checkpoint: dict[str, Any], key: str, size: int, processes: int, now: Batches) -> None:
    """Change a checkpoint within an epoch so that its position counts batches of now. At least one batch is left.

    Otherwise an epoch that has more batches done than it has now would end without its validation.

    Args:
        checkpoint: is changed.
        key: of the state of the data module, which gets how many images more are done than the batches of now have.
        size: images of a batch in each process of the checkpoint's run.
        processes: of the checkpoint's run.
        now: the batches of this run.
    """
    loop = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    current: dict[str, int] = loop["current"]
    fits = (size, processes) == (now.size, now.processes) and current["processed"] < now.longest()
    if loop["is_last_batch"] or not current["processed"] or fits:
        return
    done = current["processed"] * size * processes + checkpoint.get(key, {}).get(IMAGES_AHEAD, 0)
    done = min(done, now.images - now.processes)  # fewer images may be left to train on than are done
    # the epoch ends with the last image, so the batches are counted from its end
    batches = max(min(now.count() - now.count(done), now.longest() - 1), 0)
    added = batches - current["processed"]
    current.update({name: count + added for name, count in current.items()})
    ahead = done - batches * now.size * now.processes
    checkpoint[key] = {"epoch": checkpoint["epoch"], IMAGES_AHEAD: ahead}
