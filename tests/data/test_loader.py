import itertools
from types import SimpleNamespace

import pytest
import torch

from mnist_amp.data import loader as loader_module
from mnist_amp.data.loader import SequentialLoader, ShuffledLoader
from mnist_amp.data.normalization import Normalization

IMAGES = torch.arange(11, dtype=torch.uint8).reshape(11, 1, 1, 1).expand(11, 1, 28, 28).contiguous()
LABELS = torch.arange(11) % 10


def shuffled(
    count: int = 11, batch_size: int = 4, position: tuple[int, int] = (0, 0), rank: int = 0, world_size: int = 1
) -> ShuffledLoader:
    return ShuffledLoader(
        IMAGES, LABELS, torch.arange(count), batch_size, lambda: position, seed=42, rank=rank, world_size=world_size
    )


def indices(loader: ShuffledLoader | SequentialLoader) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader]


def test_a_batch_holds_the_images_of_its_indices() -> None:
    for batch in shuffled():
        assert torch.equal(batch.images, Normalization()(IMAGES[batch.indices]))
        assert torch.equal(batch.labels, LABELS[batch.indices])


def test_counts_the_time_that_it_takes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances by 1 when it is read, and by 100 while a batch is used."""
    seconds = [0.0]

    def read() -> float:
        seconds[0] += 1
        return seconds[0]

    monkeypatch.setattr(loader_module, "time", SimpleNamespace(perf_counter=read))
    loader = shuffled()
    for _ in loader:
        seconds[0] += 100
    assert loader.seconds == 1


def test_an_epoch_has_each_image_once() -> None:
    epoch = indices(shuffled())
    assert [len(batch) for batch in epoch] == [4, 4, 3]
    assert sorted(itertools.chain(*epoch)) == list(range(11))


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    first = indices(shuffled())
    torch.manual_seed(1)
    assert indices(shuffled()) == first
    assert indices(shuffled(position=(1, 0))) != first


def test_resumes_in_the_middle_of_an_epoch() -> None:
    assert indices(shuffled(position=(3, 8))) == indices(shuffled(position=(3, 0)))[2:]
    assert indices(shuffled(position=(3, 11))) == []


def test_asks_for_the_position_at_the_first_batch() -> None:
    position = [0, 0]
    loader = ShuffledLoader(IMAGES, LABELS, torch.arange(11), 4, lambda: (position[0], position[1]), seed=42)
    batches = iter(loader)
    position[:] = [3, 8]
    assert [batch.indices.tolist() for batch in batches] == indices(shuffled(position=(3, 8)))


def test_without_a_seed_keeps_the_order() -> None:
    loader = ShuffledLoader(IMAGES, LABELS, torch.tensor([5, 2, 7]), 2, lambda: (4, 0), seed=None)
    assert indices(loader) == [[5, 2], [7]]


@pytest.mark.parametrize(("count", "left_out"), [(10, 0), (11, 1)])
def test_two_processes_share_an_epoch(count: int, left_out: int) -> None:
    halves = [indices(shuffled(count, batch_size=2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [len(batch) for batch in halves[0]] == [len(batch) for batch in halves[1]] == [2, 2, 1]
    seen = list(itertools.chain(*halves[0], *halves[1]))
    assert len(seen) == len(set(seen)) == count - left_out


def test_evaluation_takes_batches_in_turn() -> None:
    def loader(rank: int, world_size: int) -> SequentialLoader:
        return SequentialLoader(IMAGES, LABELS, torch.arange(11), 4, rank, world_size)

    assert indices(loader(0, 1)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert indices(loader(0, 2)) == [[0, 1, 2, 3], [8, 9, 10]]
    assert indices(loader(1, 2)) == [[4, 5, 6, 7], []]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 20])
def test_length_is_the_number_of_batches(world_size: int, batch_size: int) -> None:
    for rank in range(world_size):
        training = shuffled(batch_size=batch_size, rank=rank, world_size=world_size)
        evaluating = SequentialLoader(IMAGES, LABELS, torch.arange(11), batch_size, rank, world_size)
        assert len(training) == len(indices(training))
        assert len(evaluating) == len(indices(evaluating))
