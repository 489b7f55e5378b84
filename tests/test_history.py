"""What is written down of each epoch, and the curves drawn of it."""

from shell import make_rows
from utils import history


def test_the_history_comes_back_as_it_was_written(tmp_path):
    rows = make_rows([0.1, 1 / 3]) + make_rows([0.7], phase="dice")
    history.write_history(tmp_path / "history.csv", rows)
    assert history.read_history(tmp_path / "history.csv") == rows
    assert history.read_history(tmp_path / "none.csv") == []


def test_the_best_row_is_the_first_of_the_highest_score():
    rows = make_rows([0.1, 0.8, 0.8, 0.3])
    assert history.best_row(rows) is rows[1]


def test_curves_are_drawn_over_both_phases(tmp_path):
    history.save_curves(
        tmp_path / "curves.png", make_rows([0.1, 0.3]) + make_rows([0.7], "dice"), 0.5
    )
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
