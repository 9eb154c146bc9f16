import pytest
import torch

from mnist_amp.data import memory
from mnist_amp.data.image_set import Facts
from mnist_amp.errors import RequestError

FACTS = Facts(("a", "b"), (3, 64, 64), train_size=100_000, test_size=1000)
CPU = torch.device("cpu")


def test_images_that_fit_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 2 * 10**9)
    memory.check_memory(FACTS, True, CPU)
    monkeypatch.setattr(memory, "free_host_memory", lambda: None)
    memory.check_memory(FACTS, True, CPU)


def test_images_that_do_not_fit_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 10**9)
    with pytest.raises(RequestError) as error:
        memory.check_memory(FACTS, True, CPU)
    assert str(error.value) == (
        "the 100,000 images of 3 x 64 x 64 take 1.2 GB of memory, but this machine has 1.0 GB free. Lower "
        "data.image_size, or give data.channels 1."
    )
    memory.check_memory(FACTS, False, CPU)  # the test images fit


def test_this_machine_has_memory() -> None:
    free = memory.free_host_memory()
    assert free is None or free > 10**6
