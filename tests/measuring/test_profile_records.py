"""The results.json of a profile."""

import json
from pathlib import Path

import pytest

from mnist_amp.measuring.profile_records import FormerProfileError, Kernel, NotAProfileError, ProfileResults
from tests.measuring.test_profile_report import RESULTS


def test_a_saved_profile_is_read_again(tmp_path: Path) -> None:
    RESULTS.save(tmp_path / "results.json")
    assert ProfileResults.load(tmp_path / "results.json") == RESULTS
    assert RESULTS.profile.kernels is not None
    assert RESULTS.profile.kernels[0] == Kernel("ampere_sgemm_64x64", share=0.75, tensor_cores=False)


def test_the_schema_is_first_in_the_file(tmp_path: Path) -> None:
    RESULTS.save(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_text().startswith('{\n  "schema": 2,\n')


@pytest.mark.parametrize("schema", [1, 3])
def test_a_profile_of_another_version_is_refused(schema: int, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    values = RESULTS.to_json()
    del values["schema"]
    path.write_text(json.dumps(values if schema == 1 else {"schema": schema, **values}))  # 1 did not name its version
    with pytest.raises(FormerProfileError) as error:
        ProfileResults.load(path)
    assert str(error.value) == (
        f"{path} has schema {schema}, and this version of mnist-amp reads schema 2; "
        "measure again with mnist-amp profile."
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "cells": []}', '{"schema": 2, "gradients": 3}'])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(NotAProfileError) as error:
        ProfileResults.load(path)
    assert str(error.value) == f"{path} is not the results.json of a profile."
