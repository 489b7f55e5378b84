"""The lines of docs/elsewhere.md, and the README's `segment` on other backends of Keras."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from shell import ROOT
from utils.data.demo import draw_demo_pair
from utils.data.pictures import cv2

PAGE = (ROOT / "docs/elsewhere.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
EXPORTS = [title for title, text in SECTIONS.items() if "network.export" in text]


def blocks(text):
    """Return the blocks of Python of a page's part."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def need(packages):
    """Skip a test if one of the packages, by their names for pip, is not installed."""
    missing = [p for p in packages if not importlib.util.find_spec(p.replace("-", "_"))]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")


def assert_alike(mask, expected):
    """Two masks, of 0 and 255, that are neither empty nor full, agree by a Dice of 0.999."""
    assert mask.dtype == expected.dtype == np.uint8
    assert 0.01 < np.mean(expected > 0) < 0.99
    both = np.sum((mask > 0) & (expected > 0))
    assert 2 * both / (np.sum(mask > 0) + np.sum(expected > 0)) >= 0.999


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a drawn picture and the kept networks."""
    folder = tmp_path_factory.mktemp("elsewhere")
    picture, _ = draw_demo_pair("demo_003")
    (folder / "picture.png").write_bytes(cv2.imencode(".png", picture[..., ::-1])[1])
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    return folder


def test_the_page_has_four_exports():
    assert len(EXPORTS) == 4


@pytest.mark.parametrize("title", EXPORTS)
def test_an_exported_network_makes_the_mask_that_keras_makes(title, place, monkeypatch):
    text = SECTIONS[title]
    need(" ".join(re.findall(r"^`pip install (.+)`$", text, re.MULTILINE)).split())
    monkeypatch.chdir(place)
    take, give, load = blocks(SECTIONS["What a network takes and gives"])
    (export,) = blocks(text)
    names, made = {}, []
    exec(take + load, names)
    for code in ("", export):
        exec(code + give, names)
        made.append((names["probabilities"], names["mask"]))
    (expected, mask), (given, exported) = made
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=1e-3)
    assert_alike(exported, mask)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_segment_of_the_readme_makes_the_same_mask_on_another_backend(backend, place, monkeypatch):
    need([backend])
    readme = (ROOT / "README.md").read_text()
    (segment,) = (code for code in blocks(readme) if "def segment" in code)
    monkeypatch.chdir(place)
    subprocess.run(
        [sys.executable, "-c", segment + "np.save('mask.npy', segment('picture.png'))"],
        env=os.environ | {"KERAS_BACKEND": backend},
        check=True,
    )
    names = {}
    exec(segment, names)
    assert_alike(np.load("mask.npy"), names["segment"]("picture.png"))
