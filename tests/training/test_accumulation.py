"""The accumulation of gradients, whose number of batches a callback may change by epoch."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from mnist_amp.training.accumulation import accumulates, batches_of_step
from mnist_amp.training.preflight import planned_steps
from tests.conftest import Refused


def trainer_of(scheduling: dict[int, int] | None, number: int = 1, max_epochs: int = 3, max_steps: int = -1) -> Trainer:
    """Return a Trainer with 10 batches in an epoch."""
    callbacks: list[Callback] = [] if scheduling is None else [GradientAccumulationScheduler(scheduling)]
    trainer = Trainer(
        callbacks=callbacks, accumulate_grad_batches=number, max_epochs=max_epochs, max_steps=max_steps, logger=False
    )
    trainer.fit_loop.max_batches = 10
    return trainer


def test_the_number_of_batches_by_epoch() -> None:
    assert [batches_of_step(trainer_of({1: 3, 2: 1}), epoch) for epoch in range(4)] == [1, 3, 1, 1]
    assert [batches_of_step(trainer_of(None, number=2), epoch) for epoch in range(2)] == [2, 2]
    assert [accumulates(trainer_of(*given)) for given in ((None, 1), (None, 2), ({1: 3}, 1))] == [False, True, True]


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "epochs", "steps"),
    [
        (1, -1, 1, 10),
        (2, -1, 2, 10 + 4),
        (4, -1, 4, 10 + 4 + 5 + 5),
        (-1, -1, float("inf"), float("inf")),
        (-1, 12, 2, 12),
        (4, 16, 3, 16),
        (2, 16, 2, 14),
        (1_000_000_000, 19, 3, 19),
        (1_000_000_000, -1, 1_000_000_000, 14 + 999_999_998 * 5),
    ],
)
def test_the_length_of_a_run(max_epochs: int, max_steps: int, epochs: float, steps: float) -> None:
    trainer = trainer_of({1: 3, 2: 2}, max_epochs=max_epochs, max_steps=max_steps)
    assert (planned_steps(trainer, "epoch"), planned_steps(trainer, "step")) == (epochs, steps)


def test_a_number_that_is_given_twice_is_refused(refused: Refused) -> None:
    scheduling = ("--trainer.callbacks=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 3}")
    assert refused("fit", "--trainer.accumulate_grad_batches=2", *scheduling) == (
        "mnist-amp: error: trainer.accumulate_grad_batches is 2, and GradientAccumulationScheduler sets the same "
        "number in each epoch. These can't be combined. Leave one of them out.\n"
    )
    assert not Path("lightning_logs").exists()
