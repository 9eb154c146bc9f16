"""What the figures of a comparison come to, in words; from plain numbers, with no torch."""

import math
import statistics
from collections.abc import Sequence

from mnist_amp.wording import counted

NOISE = 0.03  # of a time: what two medians may differ by and mean nothing
AGREE = 0.8  # of the rounds must have it so
QUANTILES = {2: 12.7, 3: 4.3, 4: 3.2, 5: 2.8}  # of Student's t, two-sided at 5 %, by the number of seeds


def classify(speeds: Sequence[float]) -> str:
    """Return `faster`, `slower` or `no different`, by the speed in each round; 1 is the baseline's."""
    middle = statistics.median(speeds)
    if middle >= 1 + NOISE and sum(speed > 1 for speed in speeds) >= AGREE * len(speeds):
        return "faster"
    if middle <= 1 - NOISE and sum(speed < 1 for speed in speeds) >= AGREE * len(speeds):
        return "slower"
    return "no different"


def describe(speeds: Sequence[float]) -> str:
    """Say how fast something is against the baseline, as in `0.52 times as fast (0.50 to 0.55 in 5 rounds)`."""
    spread = f"{min(speeds):.2f} to {max(speeds):.2f} in {counted(len(speeds), 'round')}"
    middle = f"{statistics.median(speeds):.2f} times as fast"
    if classify(speeds) == "no different":
        return f"no difference beyond noise, {middle} ({spread})"
    return f"{classify(speeds)}, {middle} ({spread})"


def crossover(speeds: Sequence[tuple[int, Sequence[float]]]) -> float | None:
    """Return the size from which on something is faster than the baseline; None if it never is.

    Between two sizes it is where the speed, on logarithmic scales, comes to 1.

    Args:
        speeds: by size, from the smallest on: the speed against the baseline in each round.
    """
    start = len(speeds)
    while start and classify(speeds[start - 1][1]) == "faster":
        start -= 1
    if start == len(speeds):
        return None
    size, speed = speeds[start][0], statistics.median(speeds[start][1])
    if start == 0:
        return size
    before, slow = speeds[start - 1][0], statistics.median(speeds[start - 1][1])
    if slow >= 1:  # within noise
        return size
    share = math.log(slow) / (math.log(slow) - math.log(speed))
    return float(before * (size / before) ** share)


def accuracy_differs(baseline: Sequence[float], other: Sequence[float]) -> bool:
    """Whether accuracies of the same seeds differ by more than their spread, and by a tenth of a point at least."""
    differences = [after - before for before, after in zip(baseline, other, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < 2 or abs(mean) < 0.001:
        return False
    quantile = QUANTILES.get(len(differences), 2.6)
    return abs(mean) > quantile * statistics.stdev(differences) / math.sqrt(len(differences))
