"""A short piece of faults.py: the data step and the download, which need no TensorFlow."""

import faults


def test_whatever_the_data_step_meets_ends_in_the_same_data_set(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")  # its download needs the network that conftest.py takes away
    kinds = ("kill", "fill", "fetch", "beside", "forbid")
    counts, failures = faults.run_cases(tmp_path, 5, 0, kinds, ["prepare"])
    assert failures == []
    assert sum(counts.values()) == 5
