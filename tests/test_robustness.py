"""robustness.py: its changes, and the table that it prints."""

import subprocess
import sys

import numpy as np
import pytest

import robustness
from shell import ROOT
from utils.data.demo import draw_demo_pair
from utils.data.pictures import reduce_pair


@pytest.mark.parametrize("name", robustness.CHANGES)
def test_a_change_keeps_what_a_pair_is(name):
    picture, mask = reduce_pair(*draw_demo_pair("demo_003"), 128)
    changed, moved = robustness.CHANGES[name](picture, mask, np.random.default_rng(0))
    assert changed.shape == picture.shape
    assert moved.shape == mask.shape
    assert changed.dtype == moved.dtype == np.uint8
    assert set(np.unique(moved)) == {0, 1}
    assert np.array_equal(changed, picture) == (name == "as they are")


@pytest.mark.parametrize("change", [robustness.crop(0.1), robustness.shrink(0.7)])
def test_a_mask_moves_with_its_picture(change):
    mask = np.zeros((128, 128, 1), np.uint8)
    mask[40:90, 30:70] = 1
    picture = np.repeat(mask * np.uint8(255), 3, axis=2)
    changed, moved = change(picture, mask, None)
    assert moved.sum() != mask.sum()
    np.testing.assert_array_equal(changed[..., :1] >= 128, moved > 0)


def test_changes_of_light_by_hand():
    picture = np.full((2, 2, 3), 128, np.uint8)
    dark, _ = robustness.gamma(2)(picture, None, None)
    assert (dark == 64).all()  # 255 * (128 / 255) ** 2
    red, _ = robustness.tint(2, 1, 0.5)(picture, None, None)
    assert red[0, 0].tolist() == [255, 128, 64]


def test_the_table_has_a_column_for_each_network(demo, trained):
    script = [sys.executable, str(ROOT / "tests/robustness.py"), "--data", str(demo)]
    line = [*script, "--checkpoints", str(trained), str(trained)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line[:28].strip() in robustness.CHANGES]
    assert len(rows) == len(robustness.CHANGES)
    for row in rows:
        first, second = row[28:].split()[:2], row[28:].split()[2:]
        assert first == second
        assert all(0 <= float(score) <= 1 for score in first)
