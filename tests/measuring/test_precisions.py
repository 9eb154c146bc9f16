import pytest
import torch

from mnist_amp.measuring import precisions


@pytest.mark.parametrize(
    ("name", "cuda", "expected"),
    [
        ("32-true", False, None),
        ("fp16-cpu", False, None),
        ("fp16-cpu", True, "but the fits use a GPU. Add --trainer.accelerator cpu."),
        (
            "transformer-engine",
            False,
            "which needs a CUDA device with fp8, such as an H100. Leave it out.",
        ),
    ],
)
def test_where_a_precision_can_be_measured(name: str, cuda: bool, expected: str | None) -> None:
    assert precisions.unavailable(name, cuda) == expected


def test_fp8_is_a_usual_row_where_device_and_package_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["32-true", "tf32", "bf16-mixed", "16-mixed"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert precisions.usual(cuda=True) == rows
    text = "which needs the package transformer_engine. Install it, or leave it out."
    assert precisions.unavailable("transformer-engine", cuda=True) == text
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert precisions.usual(cuda=True) == [*rows, "transformer-engine"]
    assert precisions.usual(cuda=False) == ["32-true", "bf16-mixed", "16-mixed"]
