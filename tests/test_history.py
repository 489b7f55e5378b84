"""What is written down of each epoch, and the curves drawn of it."""

import math

import pytest

from shell import full_disk, make_rows
from utils.command import InputError
from utils.training import history
from utils.training.epochs import best_row


def test_the_history_comes_back_as_it_was_written(tmp_path):
    rows = make_rows([0.1, 1 / 3]) + make_rows([0.7], phase=2)
    history.write_history(tmp_path / "history.csv", rows)
    assert history.read_history(tmp_path / "history.csv") == rows
    assert history.read_history(tmp_path / "none.csv") == []


def test_whatever_is_measured_is_written_down(tmp_path):
    """As if a metric had been added to compile_unet in the midst of a training."""
    rows = make_rows([0.1, 0.2])
    rows[1] |= {"recall": 0.25}
    history.write_history(tmp_path / "history.csv", rows)
    before, after = history.read_history(tmp_path / "history.csv")
    assert after == rows[1]
    assert math.isnan(before.pop("recall"))
    assert before == rows[0]


PLAIN = [{"bce": 1, "dice": 0}, {"bce": 0, "dice": 1}]  # each phase's loss alone


def drawn_curves(monkeypatch, path, rows, threshold=0.5, phases=PLAIN):
    """Return the axes of curves.png: those of the losses, then those of the scores."""
    figures = []

    class Kept(history.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(history, "Figure", Kept)
    history.save_curves(path, rows, best_row(rows), phases, threshold)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figures[0].axes


def test_each_phase_has_its_own_axes(tmp_path, monkeypatch):
    rows = make_rows([0.1, 0.3], loss=0.5) + make_rows([0.7, 0.6, 0.5], 2, loss=0.25)
    panels = drawn_curves(monkeypatch, tmp_path / "curves.png", rows, threshold=0.3)
    score = "Dice, mean over images,\nthreshold 0.3"
    names = [axes.get_ylabel() for axes in panels]
    assert names == ["binary cross-entropy", "Dice loss", score, score]
    assert [axes.get_title() for axes in panels] == ["phase 1", "phase 2", "", ""]
    for axes, epochs, training, validation in (
        (panels[0], [1, 2], [0.5] * 2, [0.6] * 2),
        (panels[1], [1, 2, 3], [0.25] * 3, [0.6] * 3),
        (panels[2], [1, 2], [0.5] * 2, [0.1, 0.3]),
        (panels[3], [1, 2, 3], [0.5] * 3, [0.7, 0.6, 0.5]),
    ):
        lines = axes.lines[:2]
        assert [list(line.get_xdata()) for line in lines] == [epochs, epochs]
        assert [list(line.get_ydata()) for line in lines] == [training, validation]
    assert panels[3].lines[2].get_xydata().tolist() == [[1, 0.7]]
    (legend,) = panels[0].figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["training", "validation", "kept: epoch 1 of phase 2, Dice 0.700"]
    assert all(axes.get_xlabel() == "epoch" for axes in panels)


def test_a_phases_axis_names_both_its_losses(tmp_path, monkeypatch):
    rows = make_rows([0.1]) + make_rows([0.2], phase=2)
    phases = [{"bce": 1, "dice": 0.5}, {"bce": 1, "dice": 1}]
    panels = drawn_curves(monkeypatch, tmp_path / "curves.png", rows, phases=phases)
    assert panels[0].get_ylabel() == "binary cross-entropy\n+ 0.5 x Dice loss"
    assert panels[1].get_ylabel() == "binary cross-entropy\n+ Dice loss"


def test_a_phase_of_one_epoch_is_seen(tmp_path, monkeypatch):
    for rows in (make_rows([0.1, 0.2]) + make_rows([0.7], 2), make_rows([0.1])):
        panels = drawn_curves(monkeypatch, tmp_path / "curves.png", rows)
        lines = [line for axes in panels for line in axes.lines]
        points = [line for line in lines if len(line.get_xdata()) == 1]
        assert len(points) >= 4
        assert all(line.get_marker() not in ("None", None, "") for line in points)
        ticks = [tick for axes in panels for tick in axes.get_xticks()]
        assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-9],
        lambda text: text + '2,4,"',
        lambda text: text.replace("0.5", "half"),
        lambda text: text.replace("val_dice_score", "score"),
        lambda text: text.replace("1,", "1,2,", 1),
        lambda text: text + "\0",
        lambda text: text[:-1],
        lambda text: text.replace("0.25", "nan"),
        lambda text: text.replace("seconds", "minutes"),
        lambda text: text.replace("\n1,", "\nwarmup,"),
        lambda text: text + text.splitlines(keepends=True)[1],
        lambda text: "".join(reversed(text.splitlines(keepends=True)[1:])),
        lambda text: text.replace("\n", "\n\x93NUMPY", 1),
    ],
)
def test_a_damaged_history_is_named(damage, tmp_path):
    path = tmp_path / "history.csv"
    history.write_history(path, make_rows([0.1, 0.25]))
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"history\.csv: is damaged; --fresh begins anew"):
        history.read_history(path)


def test_a_history_that_cannot_be_read_or_written_is_named(tmp_path):
    path = tmp_path / "history.csv"
    rows = make_rows([0.1] * 50)
    history.write_history(path, rows[:2])
    with full_disk(500):
        with pytest.raises(InputError, match=r"history\.csv: cannot be written .*: make room"):
            history.write_history(path, rows)
        with pytest.raises(InputError, match=r"curves\.png: cannot be written .*: make room"):
            history.save_curves(tmp_path / "curves.png", rows, rows[0], PLAIN, 0.5)
    assert history.read_history(path) == rows[:2]
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"history\.csv: cannot be read \(Is a directory\)"):
        history.read_history(path)
