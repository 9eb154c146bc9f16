"""The results.json of a profile: its keys stay, and files of earlier versions stay readable."""

import json
from pathlib import Path

from mnist_amp.measuring.profile_records import Layer, ProfileResults

SAVED = Path(__file__).parents[2] / "docs" / "results" / "profile-cpu" / "results.json"


def test_a_saved_profile_is_read_and_written_without_a_change(tmp_path: Path) -> None:
    found = ProfileResults.load(SAVED)
    found.save(tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written == json.loads(SAVED.read_text(encoding="utf-8"))
    assert found.profile.layers[0] == Layer("fc1", "Linear", "float32", "float32", "bfloat16")
    assert (
        sum(spread.nanoseconds for spread in found.profile.times.parts.values()) == found.profile.times.step.nanoseconds
    )
    assert min(found.profile.gradients.exponents) == -30


def test_kernels_are_read_again() -> None:
    values = json.loads(SAVED.read_text(encoding="utf-8"))
    values["kernels"] = [{"kernel": "ampere_sgemm", "share": 1.0, "tensor_cores": False}]
    assert ProfileResults.from_json(values).to_json() == values | {"gradients": _with_numbers(values["gradients"])}


def _with_numbers(gradients: dict[str, dict[str, int]]) -> dict[str, object]:
    """Return them with exponents that are numbers, which JSON makes strings of."""
    return {**gradients, "exponents": {int(exponent): count for exponent, count in gradients["exponents"].items()}}
