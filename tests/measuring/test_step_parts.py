"""The time of the parts of a step, with a clock that is set by hand."""

from collections.abc import Iterator
from itertools import repeat

import pytest
import torch

from mnist_amp.measuring.step_parts import (
    ACTIONS,
    LOOP,
    REQUEST,
    REQUEST_RANGE,
    TRANSFER_RANGE,
    VALIDATION_RANGE,
    HostClock,
    Recorder,
    StepProfiler,
    StreamClock,
)


class FakeClock:
    """A clock that a test sets, in nanoseconds."""

    def __init__(self) -> None:
        self.now = 0

    def mark(self) -> int:
        return self.now

    def nanoseconds(self, start: int, end: int) -> int:
        return end - start


def wait(recorder: Recorder, nanoseconds: int) -> None:
    assert isinstance(recorder.clock, FakeClock)
    recorder.clock.now += nanoseconds


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(FakeClock())


def test_time_is_assigned_to_the_innermost_part(recorder: Recorder) -> None:
    recorder.begin()
    wait(recorder, 1)
    recorder.enter("optimizer")
    wait(recorder, 10)
    recorder.enter(LOOP)
    wait(recorder, 100)
    recorder.enter("forward")
    wait(recorder, 1_000)
    recorder.leave()
    wait(recorder, 10_000)
    recorder.leave()
    wait(recorder, 100_000)
    recorder.leave()
    wait(recorder, 1_000_000)
    recorder.end()
    assert recorder.times() == [{LOOP: 1_010_101, "optimizer": 100_010, "forward": 1_000}]


def test_nothing_is_recorded_between_two_steps(recorder: Recorder) -> None:
    recorder.enter("forward")
    wait(recorder, 1)
    recorder.leave()
    recorder.begin()
    wait(recorder, 2)
    recorder.enter("forward")
    wait(recorder, 3)
    recorder.end()  # within a part, as the end of an epoch is in Lightning
    wait(recorder, 4)
    recorder.leave()
    recorder.end()
    recorder.begin()
    recorder.end()
    assert recorder.times() == [{LOOP: 2, "forward": 3}, {LOOP: 0}]


def test_the_closure_of_an_optimizer_is_time_of_the_loop(recorder: Recorder) -> None:
    def closure() -> str:
        wait(recorder, 10)
        return "loss"

    def step(factor: int, *, closure: object = None) -> object:
        wait(recorder, factor)
        return closure() if callable(closure) else None

    recorded = recorder.within("optimizer", step)
    assert recorded.__name__ == "step"
    recorder.begin()
    assert recorded(3, closure=closure) == "loss"
    assert recorded(4) is None
    recorder.end()
    assert recorder.times() == [{LOOP: 10, "optimizer": 7}]


def test_a_part_ends_when_it_fails(recorder: Recorder) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    recorder.begin()
    with pytest.raises(ZeroDivisionError):
        recorder.within("loss", fail)()
    assert recorder.parts == [LOOP]


def test_a_step_lasts_from_a_request_for_data_to_the_next_or_to_a_validation_or_the_end_of_an_epoch() -> None:
    clock, ended = FakeClock(), []

    def script() -> Iterator[None]:
        yield from repeat(None, 3)
        clock.now += 7  # between two steps

    profiler = StepProfiler(clock, script(), lambda: ended.append(clock.now))
    profiler.watch(Recorder(clock), ACTIONS)

    def during(action: str, nanoseconds: int) -> None:
        profiler.start(action)
        clock.now += nanoseconds
        profiler.stop(action)

    for _ in range(2):
        during(REQUEST, 1)
        during("[Strategy]SingleDeviceStrategy.batch_to_device", 10)
        during("[Callback]Some.on_train_batch_start", 100)
        during("[Strategy]SingleDeviceStrategy.training_step", 1_000)
        during("[LightningModule]LitClassifier.optimizer_zero_grad", 10_000)
    during("[LightningModule]LitClassifier.on_validation_model_zero_grad", 1)
    during("[Strategy]SingleDeviceStrategy.batch_to_device", 1)  # in a validation
    during(REQUEST, 2)
    profiler.stop("run_training_epoch")
    during("[LightningModule]LitClassifier.on_train_epoch_end", 1)
    step = {"waiting for data": 1, "transfer": 10, LOOP: 100, "training_step": 1_000, "optimizer": 10_000}
    assert profiler.recorder.times() == [step, step, {"waiting for data": 2, LOOP: 0}]
    assert ended == []
    profiler.start(REQUEST)
    assert ended == [2 * sum(step.values()) + 5 + 7]


def test_ranges_of_torchs_profiler_cover_requests_transfers_and_validations() -> None:
    profiler = StepProfiler(FakeClock(), repeat(None), lambda: None)
    profiler.ranges = True
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for action in (REQUEST, "[Strategy]SingleDeviceStrategy.batch_to_device"):
            profiler.start(action)
            torch.ones(1)
            profiler.stop(action)
        torch.zeros(1)  # in a step
        profiler.start("[LightningModule]Lit.on_validation_model_eval")
        profiler.start("[Strategy]SingleDeviceStrategy.batch_to_device")
        profiler.stop("[Strategy]SingleDeviceStrategy.batch_to_device")
        torch.empty(1)
        profiler.start(REQUEST)
        profiler.stop(REQUEST)
    events = {event.name: event for event in found.events()}
    within = {name: event.cpu_parent and event.cpu_parent.name for name, event in events.items()}
    assert (within["aten::ones"], within["aten::zeros"]) == (TRANSFER_RANGE, None)
    assert {REQUEST_RANGE, VALIDATION_RANGE} <= set(events)
    assert [event.cpu_parent.name for event in found.events() if event.name == "aten::empty" and event.cpu_parent][
        -1
    ] == (VALIDATION_RANGE)


def test_the_clock_of_the_host() -> None:
    clock = HostClock()
    first, second = clock.mark(), clock.mark()
    assert clock.nanoseconds(first, second) == second - first >= 0


@pytest.mark.cuda
def test_the_clock_of_a_cuda_stream_measures_its_work() -> None:
    clock, values = StreamClock(), torch.ones(8192, 8192, device="cuda")
    values @ values
    start = clock.mark()
    values @ values  # 1.1 * 10^12 operations, at 10^13 to 10^15 a second
    assert 1e6 < clock.nanoseconds(start, clock.mark()) < 1e9
