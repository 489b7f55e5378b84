"""The gallery: which pictures are shown, and a page that is whole, safe and legible to machines."""

from pathlib import Path

import cv2
import pytest

from utils.gallery import (
    FIGURES,
    SIZE_NAMES,
    gallery_names,
    size_group,
)


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_page_shows_every_picture_the_worst_first(capsys):
    page = make_gallery()
    cards = page.all("li")
    assert [float(card["data-dice"]) for card in cards] == [0.125, 0.25, 0.5, 1.0]
    assert [card["data-split"] for card in cards] == ["validation", "train", "train", "test"]
    assert [SIZE_NAMES.index(card["data-size"]) for card in cards] == [4, 1, 3, 0]
    images = page.all("img")
    assert [image["src"] for image in images] == [
        *FIGURES,
        *(f"gallery/{number:05d}.jpg" for number in (4, 2, 3, 1)),
    ]
    for image in images:
        height, width = cv2.imread(f"results/{image['src']}").shape[:2]
        assert (image["width"], image["height"]) == (str(width), str(height))
        assert image["loading"] == "lazy"
        assert image["alt"]
    assert sorted(f"gallery/{file.name}" for file in Path("results/gallery").iterdir()) == sorted(
        gallery_names(4)
    )
    assert "Beware" not in capsys.readouterr().out


def test_nothing_that_is_put_in_becomes_markup_and_nothing_is_fetched():
    page = make_gallery()
    assert len(page.all("script")) == 1
    assert f"Scores: {HOSTILE}" in page.texts
    assert "harmonic < mean" in page.texts
    assert "Beware: seen & known" in page.texts
    links = [a.get("href", "") + a.get("src", "") for _, a in page.tags]
    assert [link for link in links if ":" in link or link.startswith("/")] == []
    assert "http" not in Path("results/index.html").read_text(encoding="utf-8")


def test_the_page_is_for_keyboards_and_screen_readers():
    page = make_gallery()
    assert page.all("html") == [{"lang": "en"}]
    assert [a["value"] for a in page.all("option")][:1] == [""]
    assert {select["name"] for select in page.all("select")} == {"size", "split"}
    assert len(page.all("label")) == 2
    assert [button["type"] for button in page.all("button")] == ["button", "button"]
    assert {row["scope"] for row in page.all("th")} == {"col", "row"}
    identifiers = {a["id"] for _, a in page.tags if "id" in a}
    named = {a["aria-labelledby"] for a in page.all("section")}
    named |= {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert named <= identifiers


def test_two_predictions_are_in_the_table_and_the_first_is_outlined():
    page = make_gallery(compared=True)
    assert {"A", "B", "B - A"} <= set(page.texts)
    assert "+0.500 [+0.250, +0.750]" in page.texts
    assert any("prediction A in yellow" in text for text in page.texts)
    assert any("B: another." in text for text in page.texts)


def test_sizes_end_where_the_scores_of_polyps_do():
    ends = [0, 1e-4, 0.0199, 0.02, 0.0999, 0.1, 1]
    assert [SIZE_NAMES.index(size_group(part)) for part in ends] == [0, 1, 1, 2, 3, 4, 4]
