"""The results.json of a profile."""

from pathlib import Path

from mnist_amp.measuring.profile_records import Kernel, ProfileResults
from tests.measuring.test_profile_report import RESULTS


def test_a_saved_profile_is_read_again(tmp_path: Path) -> None:
    RESULTS.save(tmp_path / "results.json")
    assert ProfileResults.load(tmp_path / "results.json") == RESULTS
    assert RESULTS.to_json()["schema"] == 2
    assert RESULTS.profile.kernels is not None
    assert RESULTS.profile.kernels[0] == Kernel("ampere_sgemm_64x64", share=0.75, tensor_cores=False)
