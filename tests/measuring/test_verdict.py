import pytest

from mnist_amp.measuring import verdict


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([2.5, 2.6, 2.7, 2.4, 2.6], "2.60 times as fast as 32-true (2.40 to 2.70 in 5 rounds)"),
        ([0.5, 0.52, 0.55], "0.52 times as fast as 32-true (0.50 to 0.55 in 3 rounds)"),
        ([1.01, 1.02, 1.03], "1.02 times as fast as 32-true (1.01 to 1.03 in 3 rounds), no difference beyond noise"),
        ([0.9, 1.1, 1.1, 1.1, 1.1], "1.10 times as fast as 32-true (0.90 to 1.10 in 5 rounds)"),
        (
            [0.9, 0.9, 1.1, 1.1, 1.1],
            "1.10 times as fast as 32-true (0.90 to 1.10 in 5 rounds), no difference beyond noise",
        ),
        (
            [0.9, 0.9, 0.9, 1.1, 1.2],
            "0.90 times as fast as 32-true (0.90 to 1.20 in 5 rounds), no difference beyond noise",
        ),
    ],
)
def test_a_speed_is_described(speeds: list[float], expected: str) -> None:
    assert verdict.describe(speeds, "32-true") == expected


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([(128, [0.5]), (512, [2.0]), (2048, [3.0])], 256),  # half and double: in the middle, on logarithmic scales
        ([(128, [0.5]), (512, [0.9]), (2048, [0.95])], None),
        ([(128, [1.5]), (512, [2.0])], 128),
        ([(128, [2.0]), (512, [0.5])], None),  # not at the largest size
        ([(128, [1.01]), (512, [2.0])], 512),  # within noise at the size before
        ([], None),
        ([(0, [0.5]), (512, [2.0])], 512),  # 0 has no logarithm
        ([(0.001, [0.5]), (0.1, [2.0])], 0.01),
    ],
)
def test_crossover(speeds: list[tuple[float, list[float]]], expected: float | None) -> None:
    found = verdict.crossover(speeds)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("baseline", "other", "expected"),
    [
        ([0.960, 0.970, 0.965], [0.950, 0.961, 0.954], True),  # a percentage point less with each seed
        ([0.960, 0.970, 0.965], [0.965, 0.964, 0.967], False),
        ([0.9600, 0.9700, 0.9650], [0.9605, 0.9705, 0.9655], False),  # reliably, but by less than a tenth of a point
        ([0.96], [0.90], False),  # one seed has no spread
    ],
)
def test_accuracies_differ_beyond_the_spread(baseline: list[float], other: list[float], expected: bool) -> None:
    assert verdict.metric_differs(baseline, other) is expected
