"""The gallery: which pictures are shown, and a page that is whole, safe and legible to machines."""

from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from test_cases import DrawnPictures, make_pictures
from utils.reporting.gallery import SIZE_NAMES, card_name, report_names, save_gallery, size_group
from utils.reporting.plots import FIGURES
from utils.results import Results
from utils.scoring.scored import pack_predictions


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Page(HTMLParser):
    """What the tests look for in a page; each element that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


HOSTILE = "<script>alert('\"&')</script>"


def make_gallery(compared=False):
    """Leave the gallery of four pictures, the first of them without a polyp; return its page."""
    masks = np.zeros((4, 16, 16, 1), np.uint8)
    for number, side in enumerate((0, 2, 4, 12)):
        masks[number, :side, :side] = 1
    names, splits = ["a", HOSTILE, "息肉", "d"], ["test", "train", "train", "validation"]
    pictures = DrawnPictures(make_pictures(4, 16, 16, 3), masks, names, splits)
    table = {
        "name": names,
        "dice": np.array([1.0, 0.25, 0.5, 0.125]),
        "polyp_fraction": masks.mean(axis=(1, 2, 3)),
        "alarms": np.array([0, 1, 2, 1]),
    }
    metric = {"value": 0.5, "interval": (0.25, 0.75), "definition": "harmonic < mean"}
    others = {
        "polyps": {"false_regions_iou": metric | {"count": 4}},
        "polyps_by_size": [
            {"least": 0, "below": 1, "count": 3, "iou": metric, "overlap": metric},
        ],
        "borders": {"boundary_f1": metric},
        "probabilities": {"calibration_error": metric},
    }
    report = {
        "title": HOSTILE,
        "images": 4,
        "images_with_polyp": 3,
        "scenes": 3,
        "resolution": "16 x 16 pixels",
        "prediction": "a pixel is called polyp",
        "networks": [{"network": "checkpoints/a: 8 filters"}],
        "intervals": "95 % bootstrap",
        "warnings": ["seen & known"],
        "notes": [],
        "metrics": {"f1": metric},
        **others,
    }
    if compared:
        report["compared"] = {
            "prediction": "another",
            "networks": [{"network": "checkpoints/b: 8 filters"}],
            "metrics": {"f1": metric},
            "difference": {
                "metrics": {"f1": metric},
                "polyps": {"false_regions_iou": metric},
                "borders": {"boundary_f1": metric},
                "probabilities": {"calibration_error": metric},
            },
            **others,
        }
    results = Results("results")
    with results.begin(report_names(4)):
        for name in FIGURES:
            with results.write(name) as beside:
                beside.write_bytes(cv2.imencode(".png", np.zeros((30, 50), np.uint8))[1])
        save_gallery(results, report, pictures, table, pack_predictions(masks > 0))
    return Page(Path("results/index.html").read_text(encoding="utf-8"))


def test_the_page_shows_every_picture_the_worst_first(capsys):
    page = make_gallery()
    cards = page.all("li")
    assert [float(card["data-dice"]) for card in cards] == [0.125, 0.25, 0.5, 1.0]
    assert [card["data-split"] for card in cards] == ["validation", "train", "train", "test"]
    assert [SIZE_NAMES.index(card["data-size"]) for card in cards] == [4, 1, 3, 0]
    assert [card["data-alarm"] for card in cards] == [*["alarm"] * 3, "no alarm"]
    images = page.all("img")
    assert [image["src"] for image in images] == [
        *(f"gallery/{number:05d}.jpg" for number in (4, 2, 3, 1)),
        *FIGURES,
    ]
    for image in images:
        height, width = cv2.imread(f"results/{image['src']}").shape[:2]
        assert (image["width"], image["height"]) == (str(width), str(height))
        assert image["loading"] == "lazy"
        assert image["alt"]
    assert sorted(f"gallery/{file.name}" for file in Path("results/gallery").iterdir()) == sorted(
        map(card_name, range(4))
    )
    assert {"F1", "boundary F1", "false regions, by an IoU of 0.5 or more"} <= set(page.texts)
    assert "Beware" not in capsys.readouterr().out


def test_nothing_that_is_put_in_becomes_markup_and_nothing_is_fetched():
    page = make_gallery()
    assert len(page.all("script")) == 1
    assert f"Scores: {HOSTILE}" in page.texts
    assert any("|mean probability - share of polyp|" in text for text in page.texts)
    assert "Beware: seen & known" in page.texts
    links = [a.get("href", "") + a.get("src", "") for _, a in page.tags]
    assert [link for link in links if ":" in link or link.startswith("/")] == []
    assert "http" not in Path("results/index.html").read_text(encoding="utf-8")


def test_the_page_is_for_keyboards_and_screen_readers():
    page = make_gallery()
    assert page.all("html") == [{"lang": "en"}]
    assert [a["value"] for a in page.all("option")][:1] == [""]
    assert {select["name"] for select in page.all("select")} == {"size", "alarm", "split"}
    assert len(page.all("label")) == 3
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
    assert any("mask blue, prediction yellow on top, of A" in text for text in page.texts)
    assert {"Network B: checkpoints/b: 8 filters", "Prediction B: another"} <= set(page.texts)


def test_sizes_end_where_the_scores_of_polyps_do():
    ends = [0, 1e-4, 0.0199, 0.02, 0.0999, 0.1, 1]
    assert [SIZE_NAMES.index(size_group(part)) for part in ends] == [0, 1, 1, 2, 3, 4, 4]
