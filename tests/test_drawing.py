"""Names in figures, in any script, and contact sheets."""

import numpy as np

from utils import drawing


def test_names_are_shown_as_they_are_or_cut_in_the_middle():
    assert drawing.printable("demo_0012", 144, 10) == "demo_0012"
    assert drawing.printable("Über_β", 144, 10) == "Über_β"
    cut = drawing.printable("cju7er4kc2opa0801anuxc0eb", 144, 10)
    assert cut.startswith("cju7er4")
    assert cut.endswith("nuxc0eb")
    assert drawing.printable("W" * 40, 144, 10).count("W") < len(cut)  # wider letters
    assert drawing.printable("", 144, 10) == ""


def test_what_the_font_lacks_is_a_question_mark():
    assert drawing.printable("息肉_01\t", 144, 10) == "??_01?"


def test_a_sheet_takes_names_in_any_script(tmp_path, drawn):
    pictures, masks = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)
    titles = ["best\n息肉图像", "worst\n$x_{2$"]
    drawing.save_sheet(tmp_path / "a.png", {"picture": pictures, "mask": masks}, titles, "Title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    shown = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert shown == ["best\n????", "worst\n$x_{2$"]


def test_a_sheet_has_room_for_a_title_of_two_lines(tmp_path, drawn):
    masks = np.zeros((2, 8, 8), np.uint8)
    for title in ("one line", "one line\nand another"):
        drawing.save_sheet(tmp_path / "a.png", {"mask": masks}, ["a", "b"], title)
    drawing.save_sheet(tmp_path / "a.png", {"mask": masks}, ["a", "b"], "a folder/" * 99)
    one, two, cut = (figure.get_size_inches() for figure in drawn)
    assert two[1] > one[1] + 0.15
    assert cut[0] < 10
