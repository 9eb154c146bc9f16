"""The page that describes results.json has every field of the records."""

from dataclasses import asdict, fields, make_dataclass

import pytest

import results_format
from mnist_amp.measuring.compare_records import Cell, Comparison, Failure, Inference, Measurement, Score, Speed
from mnist_amp.measuring.inference_records import InferenceResult, Timing
from mnist_amp.measuring.numerics_records import Numerics
from mnist_amp.measuring.profile_records import Profile, ProfileResults, StepTimes
from tests.measuring.records import SLOWER_HERE, comparison, failed_score, sized
from tests.measuring.test_profile_report import RESULTS


def names(record: type) -> set[str]:
    return {field.name for field in fields(record)}


PROFILE = names(Profile) - {"times"} | names(StepTimes)


def test_the_tables_are_those_of_the_records() -> None:
    """If this fails, run `python benchmarks/results_format.py`."""
    page = results_format.PAGE.read_text(encoding="utf-8")
    assert results_format.filled(page) == page


def test_each_record_has_a_table() -> None:
    """If this fails, add a marker to docs/results-format.md, and a sentence that says where the record is in JSON."""
    page = results_format.PAGE.read_text(encoding="utf-8")
    assert sorted(found[2] for found in results_format.SHOWN.finditer(page)) == sorted(results_format.records())


def test_a_field_without_a_description_is_an_error() -> None:
    record = make_dataclass("Record", [("known", int), ("new", str)])
    record.__doc__ = "A record.\n\nAttributes:\n    known: a number\n        of things.\n"
    assert results_format.attributes(record) == {"known": "a number of things."}
    with pytest.raises(ValueError, match=r"^the docstring of Record describes \['known'\]; its fields are .*'new'"):
        results_format.table(record)


def test_a_comparison_in_json_has_the_documented_fields() -> None:
    result = InferenceResult("32-true", single=Timing(1, [0.1], p90=0.1, calls=1))
    inference = Measurement(Cell("inference", "32-true", sized(128, 64), 0), Inference([result]))
    values = comparison([*SLOWER_HERE, failed_score("16-mixed", "why"), inference]).to_json()
    assert set(values) == {"schema"} | names(Comparison)
    outcomes = {"speed": names(Speed), "profile": PROFILE, "score": names(Score), "inference": names(Inference)}
    outcomes["numerics"] = names(Numerics)
    for row in values["cells"]:
        known = names(Failure) if "error" in row else outcomes[row["cell"]["kind"]]
        assert set(row) - known == {"cell"}
    assert set(values["cells"][-1]["results"][0]) <= names(InferenceResult)


def test_a_profile_in_json_has_the_documented_fields() -> None:
    values = RESULTS.to_json()
    assert set(values) == {"schema"} | names(ProfileResults) - {"profile"} | PROFILE
    (part, *_) = values["parts"]
    assert set(part) == {"part", *asdict(RESULTS.profile.times.step)}
