"""A short piece of faults.py: the data step and the download, which need no TensorFlow."""

import faults


def test_kills_full_disks_and_bad_servers_end_in_the_same_data_set(tmp_path):
    kinds = ("kill", "fill", "fetch")
    counts, failures = faults.run_cases(tmp_path, 3, 0, kinds, ["data_preprocessing"])
    assert failures == []
    assert sum(counts.values()) == 3
