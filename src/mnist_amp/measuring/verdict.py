"""Whether one thing is faster or more accurate than another, decided from repeated measurements. No torch here."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from mnist_amp.wording import counted

NOISE = 0.03  # a smaller difference of two medians means nothing
AGREE = 0.8  # at least this share of the rounds must agree
QUANTILES = {2: 12.7, 3: 4.3, 4: 3.2, 5: 2.8}  # of Student's t, two-sided at 5 %, by the number of seeds


def classify(speeds: Sequence[float]) -> Literal["faster", "slower", "no different"]:
    """Return how a speed compares with the baseline.

    It differs if the median is at least 3 % away from 1 and at least 80 % of the rounds agree on the direction.

    >>> classify([2.5, 2.6, 2.4])
    'faster'
    >>> classify([0.9, 1.1, 0.9])
    'no different'

    Args:
        speeds: how many times as fast as the baseline, in each round.
    """
    middle = statistics.median(speeds)
    if middle >= 1 + NOISE and sum(speed > 1 for speed in speeds) >= AGREE * len(speeds):
        return "faster"
    if middle <= 1 - NOISE and sum(speed < 1 for speed in speeds) >= AGREE * len(speeds):
        return "slower"
    return "no different"


def describe(speeds: Sequence[float], baseline: str) -> str:
    """Describe a speed against the baseline.

    >>> describe([0.5, 0.52, 0.55], "32-true")
    '0.52 times as fast as 32-true (0.50 to 0.55 in 3 rounds)'
    >>> describe([1.01, 1.02, 1.03], "32-true")
    '1.02 times as fast as 32-true (1.01 to 1.03 in 3 rounds), no difference beyond noise'
    """
    spread = f"in {counted(len(speeds), 'round')}"
    if len(speeds) > 1:
        spread = f"{_number(min(speeds))} to {_number(max(speeds))} {spread}"
    text = f"{_number(statistics.median(speeds))} times as fast as {baseline} ({spread})"
    return f"{text}, no difference beyond noise" if classify(speeds) == "no different" else text


def _number(speed: float) -> str:
    return f"{speed:.2f}" if speed >= 0.1 else f"{speed:.2g}"


def crossover(speeds: Sequence[tuple[float, Sequence[float]]]) -> float | None:
    """Return the size from which on something is faster than the baseline; None if it is not at the largest size.

    Between two sizes, it is where the line through their speeds, on logarithmic scales, reaches 1. A size that is not
    above 0 has no place on such a scale: the size after it is returned.

    >>> crossover([(128, [0.5]), (512, [2.0])])
    256.0
    >>> crossover([(128, [0.5]), (512, [0.9])]) is None
    True

    Args:
        speeds: sizes in ascending order, each with how many times as fast as the baseline it is in each round.
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
    if slow >= 1 or before <= 0:  # within noise, or without a logarithm
        return size
    share = math.log(slow) / (math.log(slow) - math.log(speed))
    return float(before * (size / before) ** share)


def metric_differs(baseline: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two values of a metric differ by more than the spread over seeds, and by at least a thousandth.

    >>> metric_differs([0.960, 0.970, 0.965], [0.950, 0.961, 0.954])
    True

    Args:
        baseline: values of several seeds, such as accuracies.
        other: values of the same seeds.
    """
    differences = [after - before for before, after in zip(baseline, other, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < 2 or abs(mean) < 0.001 * abs(statistics.mean(baseline)):
        return False
    quantile = QUANTILES.get(len(differences), 2.6)
    return abs(mean) > quantile * statistics.stdev(differences) / math.sqrt(len(differences))
