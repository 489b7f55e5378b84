"""What evaluation.py scores, the networks that it loads, and what it refuses."""

import io
import json
import os
import zipfile
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

import evaluation
from model import build_unet
from shell import ROOT, make_pictures, read_rows, save_data_set, save_folds, zip_folders
from utils.command import InputError
from utils.data.demo import draw_demo_pair
from utils.prediction.networks import hash_weights, load_unet, read_networks
from utils.reporting.plots import figures_of
from utils.scoring.calibration import fit_temperature
from utils.scoring.labelled import Batch
from utils.scoring.pixels import image_scores
from utils.scoring.scored import Scored, score_pictures
from utils.training.kernels import fold, to_train


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _figures_are_dots(request, monkeypatch):
    """Draw no figure, which takes longer than all else, unless a test asks for `figures`."""

    def save_dots(results, pictures, scored, properties, groups, report):
        for name in figures_of(report):
            with results.write(name) as beside:
                beside.write_bytes(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1])

    if "figures" not in request.fixturenames:
        monkeypatch.setattr(evaluation, "save_figures", save_dots)


@pytest.fixture
def figures():
    """Ask for figures as they are."""


def save_checkpoint(folder, filters=1, size=16, seed=0, data="abc", polyp_fraction=0.5):
    """Leave an untrained network in a folder as train.py does."""
    keras.utils.set_random_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    network = build_unet(size, filters=filters, polyp_fraction=polyp_fraction)
    network.save(folder / "unet.keras")
    settings = {"filters": filters, "seed": seed, "data_source": "demo", "data_sha256": data}
    (folder / "config.json").write_text(json.dumps({"settings": settings}))
    return folder


@pytest.mark.parametrize("value", [0, 1, -0.5, "0.5", float("nan")])
def test_an_impossible_threshold_is_named(value, monkeypatch):
    monkeypatch.setattr(evaluation, "THRESHOLD", value)
    monkeypatch.setattr("sys.argv", ["evaluation.py"])
    with pytest.raises(InputError, match=r"^THRESHOLD = .*: must be a number above 0 and below 1"):
        evaluation.main()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((0.5, 1), r"^THRESHOLDS = \(0\.5, 1\): must be a tuple of numbers above 0"),
        (0.5, r"^THRESHOLDS = 0\.5: must be a tuple of numbers"),
        ((), r"^THRESHOLDS = \(\): must be a tuple of numbers"),
    ],
)
def test_impossible_thresholds_are_named(value, words, monkeypatch):
    monkeypatch.setattr(evaluation, "THRESHOLDS", value)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--thresholds"])
    with pytest.raises(InputError, match=words):
        evaluation.main()


@pytest.mark.parametrize("value", [0, 1.5, "32"])
def test_an_impossible_batch_size_is_named(value, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_SIZE", value)
    monkeypatch.setattr("sys.argv", ["evaluation.py"])
    with pytest.raises(InputError, match=r"^BATCH_SIZE = .*: must be a whole number from 1 on"):
        evaluation.main()


def load(folders, tta):
    """Return a function from pictures to the probabilities of networks, and their size."""
    _, (predict,), size, _ = evaluation.load_prediction(read_networks(folders), tta)
    return predict, size


def test_pictures_that_were_never_prepared_have_a_shipped_network_of_their_own():
    for prepared, name in ((True, "hyperkvasir-32"), (False, "hyperkvasir-normals-32")):
        assert evaluation.find_networks(None, prepared) == [ROOT / "checkpoints" / name]
        own = save_checkpoint(Path(evaluation.CHECKPOINTS_DIR))
        assert evaluation.find_networks(None, prepared) == [own]
        (own / "unet.keras").unlink()


@pytest.mark.parametrize(
    ("line", "prepared"),
    [
        ("", True),
        ("--data a", True),
        ("--archive a.zip --split test", True),
        ("--archive a.zip", False),
        ("--images a --masks b", False),
        ("--normals a --thresholds", False),
    ],
)
def test_which_pictures_are_prepared(line, prepared, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evaluation.py", *line.split()])
    assert evaluation.are_prepared(evaluation.parse_arguments()[0]) == prepared


def test_a_network_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    folder, pictures = save_checkpoint(tmp_path / "a"), make_pictures(1, 16, 16, 3)
    networks = evaluation.choose_networks([folder], tta=False)
    save_checkpoint(folder, seed=1)  # as a training beside it would
    chosen, (predict,), *_ = evaluation.load_prediction(networks, tta=False)
    assert chosen.weights == hash_weights([folder]) != networks.weights
    expected = load([folder], tta=False)[0](pictures)
    np.testing.assert_array_equal(predict(pictures), expected)


def test_several_networks_and_views_are_the_mean_of_all(tmp_path):
    folders = [save_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    pictures = make_pictures(2, 16, 16, 3)
    single = [load([folder], tta=True)[0] for folder in folders]
    both, size = load(folders, tta=True)
    assert size == 16
    expected = np.mean([predict(pictures) for predict in single], axis=0)
    np.testing.assert_allclose(both(pictures), expected, atol=1e-6)
    plain = load(folders, tta=False)[0]
    assert np.abs(plain(pictures) - expected).max() > 1e-4


def test_an_equivariant_network_answers_all_views_alike_and_is_asked_once(tmp_path):
    folder, pictures = save_checkpoint(tmp_path / "a"), make_pictures(2, 16, 16, 3)
    plain = build_unet(16, 8)
    fold(to_train(plain, "equivariant"), plain)
    plain.save(folder / "unet.keras")
    views, _ = load([folder], tta=True)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["kernels"] = "equivariant"
    (folder / "config.json").write_text(json.dumps(config))
    once, _ = load([folder], tta=True)
    np.testing.assert_array_equal(once(pictures), load([folder], tta=False)[0](pictures))
    np.testing.assert_allclose(once(pictures), views(pictures), atol=0.01)  # in bfloat16 too
    assert once(pictures).std() > 0.02


def test_networks_of_several_sizes_are_not_averaged(tmp_path):
    folders = [save_checkpoint(tmp_path / str(size), size=size) for size in (16, 32)]
    with pytest.raises(InputError, match=r"32: its network takes 32 pixels a side, that of .*16"):
        load(folders, tta=False)


class Unknown(keras.layers.Layer):
    """A layer that Keras is not told of when it loads."""

    def call(self, inputs):
        return inputs[..., :1]


def from_picture(function, *shape):
    picture = keras.Input(shape)
    return keras.Model(picture, function(picture))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (from_picture(Unknown(), 16, 16, 3), "a layer that Keras does not know, Unknown"),
        (from_picture(keras.layers.Lambda(lambda x: x), 16, 16, 3), "a Lambda layer"),
        (from_picture(keras.layers.Conv2D(2, 1), 16, 16, 3), "16, 16, 2"),
        (from_picture(keras.layers.Conv2D(1, 1), 16, 16, 1), "16, 16, 1"),
        (from_picture(keras.layers.Conv2D(1, 1), 16, 32, 3), "16, 32, 3"),
        (from_picture(keras.layers.Conv2D(1, 1), None, None, 3), "None, None, 3"),
        (from_picture(keras.layers.Dense(1), 16), "(None, 16)"),
        (keras.Model([keras.Input((4,)), other := keras.Input((4,))], other), "[(None, 4)"),
    ],
    ids=["unknown", "lambda", "two classes", "grey", "oblong", "any size", "no picture", "two"],
)
def test_a_network_of_another_kind_is_named_with_what_it_is(network, words, tmp_path):
    network.save(tmp_path / "unet.keras")
    with pytest.raises(ValueError, match=r"unet\.keras: ") as error:
        load_unet(tmp_path / "unet.keras")
    text = str(error.value)
    assert words in text
    assert text.endswith("with python train.py")
    assert "\n" not in text


def test_every_damaged_model_is_one_line(tmp_path):
    path = tmp_path / "unet.keras"
    build_unet(16, filters=1).save(path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    flipped = np.frombuffer(whole, np.uint8).copy()
    flipped[random.integers(0, len(whole), 40)] ^= 255
    broken = [whole[: len(whole) // 2], flipped.tobytes()]
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in ("config.json", "model.weights.h5"):
        for content in (None, b"", b"[]", files[name][: len(files[name]) // 2]):
            rewritten = io.BytesIO()
            with zipfile.ZipFile(rewritten, "w") as archive:
                for other in files:
                    if other != name or content is not None:
                        archive.writestr(other, content if other == name else files[other])
            broken.append(rewritten.getvalue())
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"unet\.keras: not a model .* with python train\.py$"):
            load_unet(path)


def test_a_plain_network_that_is_not_this_u_net_predicts_too(tmp_path):
    network = from_picture(keras.layers.Conv2D(1, 3, padding="same"), 16, 16, 3)
    network.save(tmp_path / "unet.keras")
    pictures = make_pictures(1, 16, 16, 3)
    loaded = load_unet(tmp_path / "unet.keras", "mixed_bfloat16")
    np.testing.assert_array_equal(loaded(pictures), network(pictures))


@pytest.mark.parametrize("polyps", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.usefixtures("figures")
def test_the_smallest_test_splits_are_scored(count, polyps, tmp_path, monkeypatch, recwarn):
    masks = np.zeros((count, 16, 16, 1), np.uint8)
    masks[:polyps, 4:9, 4:9] = 1
    data = save_data_set(tmp_path / "data", masks)
    checkpoints = save_checkpoint(tmp_path / "checkpoints")
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data)])
    evaluation.main()
    assert [str(warning.message) for warning in recwarn if "glyph" in str(warning.message)] == []
    report = json.loads(Path("results/metrics.json").read_text())
    assert report["images"] == count
    assert report["networks"][0]["checkpoints"] == checkpoints.name
    names = ["metrics.json", "metrics.md", "per_image.csv", "written.jsonl", "gallery"]
    names += ["index.html", "predictions.png", "worst.png"]
    if polyps:
        names += ["precision_recall.png", "dice_histogram.png", "dice_by_size.png", "froc.png"]
        names += ["sensitivity_by_size.png", "reliability.png", "failures.png"]
    assert sorted(os.listdir("results")) == sorted(names)


@pytest.mark.usefixtures("figures")
def test_a_polyp_too_small_to_count_has_scores_and_no_figures_of_polyps(
    tmp_path, monkeypatch, recwarn
):
    masks = np.zeros((2, 64, 64, 1), np.uint8)
    masks[0, 9, 9] = 1  # a region has three pixels or more
    data = save_data_set(tmp_path / "data", masks, size=64)
    save_checkpoint(tmp_path / "checkpoints", size=64)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data)])
    evaluation.main()
    assert [str(warning.message) for warning in recwarn if "NaN" in str(warning.message)] == []
    report = json.loads(Path("results/metrics.json").read_text())
    assert report["images_with_polyp"] == 1
    assert report["metrics"]["recall"]["value"] == 1  # an untrained network calls all polyp
    figures = {path.name for path in Path("results").glob("*.png")}
    assert figures == {"predictions.png", "worst.png"}


class DrawnPictures:
    """Labelled pictures of arrays; own_masks: of the masks at the pictures' own size, or None."""

    title = "drawn pictures"

    def __init__(self, images, masks, own_masks=None):
        self.images, self.masks, self.own_masks = images, masks, own_masks
        self.names = [f"n{number}" for number in range(len(images))]
        self.parts = [self]

    def batches(self, size, count):
        for begin in range(0, len(self.names), count):
            rows = slice(begin, begin + count)
            yield Batch(*self.pairs(rows, size), self.own_masks and self.own_masks[rows])

    def pairs(self, rows, size):
        return self.images[rows], self.masks[rows]


def redness(pictures):
    return (pictures[..., :1] / 255).astype(np.float32)


def test_pictures_are_scored_at_both_sizes_by_hand():
    """The left half is polyp; the network is sure of half of it, and less sure of the rest."""
    images = np.zeros((3, 4, 8, 3), np.uint8)
    images[:, :, :2], images[:, :, 2:4] = 255, 102
    masks = np.zeros((3, 4, 8, 1), np.uint8)
    masks[:, :, :4] = 1
    own = [np.zeros((8 * n, 16 * n), np.uint8) for n in (1, 2, 5)]
    for mask in own:
        mask[:, : mask.shape[1] // 2] = 255
    drawn = DrawnPictures(images, masks, own)
    strict, lenient = scored = [Scored(0.7), Scored(0.2)]
    properties = score_pictures([[redness]] * 2, scored, drawn, 8, batch_size=2)
    assert np.array(strict.counts).tolist() == [[8, 0, 8, 16]] * 3
    assert np.array(lenient.counts).tolist() == [[16, 0, 0, 16]] * 3
    assert strict.curve.sum() == sum(strict.plain.histograms)[0].sum() == 3 * 32
    assert [values["size"] for values in properties] == [50] * 3
    assert [polyps.ious.tolist() for polyps, _ in strict.regions] == [[0.5]] * 3
    assert [f1 for _, f1 in lenient.borders] == [1] * 3
    # Bilinearly, 1 turns into 0.4 and 0.4 into 0: in the middle they are 0.7 and 0.2
    for mask, narrow, wide in zip(own, strict.own_counts, lenient.own_counts, strict=True):
        scale = mask.shape[1] // 8
        tall, half = mask.shape[0], mask.shape[1] // 2
        assert narrow.tolist() == [tall * 2 * scale, 0, tall * (half - 2 * scale), tall * half]
        assert wide.tolist() == [tall * half, 0, 0, tall * half]


def test_labelled_pictures_without_a_split_are_scored_and_compared(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / "images", tmp_path / "masks"]
    for folder in folders:
        folder.mkdir()
    for number in range(3):
        pair = draw_demo_pair(f"demo_{number:03d}")
        for folder, image in zip(folders, pair, strict=True):
            image = cv2.resize(image, (100, 80), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / f"{number}.png"), image)
    for seed, name in enumerate("ab"):
        save_checkpoint(tmp_path / name, filters=4, seed=seed)
    line = ["evaluation.py", "--images", "images", "--masks", "masks"]
    monkeypatch.setattr("sys.argv", [*line, "--checkpoints", "a", "--compare", "b"])
    evaluation.main()
    out = capsys.readouterr().out
    report = json.loads(Path("results/metrics.json").read_text())
    assert report["split"] is None
    assert report["trained_on_this_data"] is None
    assert report["title"] == "pictures of images and masks"
    assert f"Scores of 3 images of {report['scenes']} scenes: pictures of images and mask" in out
    rows = read_rows(Path("results/per_image.csv"))
    for letter, prefix, part in (("a", "", report), ("b", "compared_", report["compared"])):
        assert [network["checkpoints"] for network in part["networks"]] == [letter]
        for end, own in (("", ""), ("_at_own_size", "own_")):
            mean = np.mean([float(row[f"{prefix}{own}dice"]) for row in rows])
            assert mean == pytest.approx(part[f"metrics{end}"]["image_dice"]["value"], abs=1e-5)
    assert "images on which they differ most" in out
    assert "results/index.html: a page of these, and of all pictures and figures of A\n" in out
    assert report["metrics"] != report["compared"]["metrics"]
    archive = ["--archive", str(zip_folders(folders, tmp_path / "pairs.zip"))]
    for letter, part in (("a", report), ("b", report["compared"])):
        arguments = [*archive, "--checkpoints", letter, "--results", letter * 2]
        monkeypatch.setattr("sys.argv", ["evaluation.py", *arguments])
        evaluation.main()
        alone = json.loads(Path(letter * 2, "metrics.json").read_text())
        assert alone["title"] == "pictures of pairs.zip"
        assert alone["metrics_at_own_size"] == part["metrics_at_own_size"]
    capsys.readouterr()

    os.rename("images/2.png", "normal.png")
    os.remove("masks/2.png")
    os.mkdir("normals")
    os.rename("normal.png", "normals/2.png")
    line += ["--normals", "normals", "--checkpoints", "a"]
    monkeypatch.setattr(evaluation, "REACHED", 0.5)
    monkeypatch.setattr("sys.argv", [*line, "--thresholds"])
    evaluation.main()
    out = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", line)
    evaluation.main()
    surest = [float(row["sureness"]) for row in read_rows(Path("results/per_image.csv"))]
    level = json.loads(Path("a/thresholds.json").read_text())["level"]
    assert level == pytest.approx(min(surest[:2]), abs=1e-6)  # of those with a polyp
    reached = "100.0" if surest[2] >= level else "0.0"
    assert f"100% of the pictures with a polyp and {reached}% of those without reach" in out
    report = json.loads(Path("results/metrics.json").read_text())
    assert report["level"] == level
    assert report["images_with_polyp"] == 2
    assert "area under the ROC" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["evaluation.py", "images/0.png", "--checkpoints", "a"])
    evaluation.main()
    assert "results: 16 of an earlier run's files are replaced" in capsys.readouterr().out
    assert sorted(os.listdir("results")) == ["masks", "overlays", "pictures.csv", "written.jsonl"]


def test_a_prepared_split_is_scored_at_its_pictures_own_size_too(tmp_path, monkeypatch):
    masks = np.zeros((3, 16, 16, 1), np.uint8)
    masks[:, :, :8] = 1
    data = save_data_set(tmp_path / "data", masks)
    save_checkpoint(tmp_path / "checkpoints")
    folders = [tmp_path / "images", tmp_path / "masks"]
    arrays = np.load(data / "images.npy")[..., ::-1], 255 * np.load(data / "masks.npy")
    for folder, images in zip(folders, arrays, strict=True):
        folder.mkdir()
        for row, image in enumerate(images):
            large = cv2.resize(image, (64, 48), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / f"n{row}.png"), large)
    archive = ["--archive", str(zip_folders(folders, tmp_path / "pairs.zip"))]
    reports = []
    for of in ([], archive, [*archive, "--split", "train"]):
        monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data), *of])
        evaluation.main()
        reports.append(json.loads(Path("results/metrics.json").read_text()))
    test, own, train = reports
    assert "metrics_at_own_size" not in test
    assert own["metrics"] == test["metrics"]
    assert own["title"] == test["title"] == f"test split of {data}"
    assert own["metrics_at_own_size"].keys() == own["metrics"].keys()
    assert (own["images"], train["images"]) == (3, 1)
    assert train["metrics_at_own_size"] != own["metrics_at_own_size"]


@pytest.mark.parametrize(("split", "names"), [("train", ["n0"]), ("all", ["n0", "n1", "n2"])])
def test_the_split_that_is_asked_for_is_scored(split, names, tmp_path, monkeypatch, capsys):
    data = save_data_set(tmp_path / "data", np.ones((1, 16, 16, 1), np.uint8))
    save_checkpoint(tmp_path / "checkpoints")
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data), "--split", split])
    evaluation.main()
    assert [row["name"] for row in read_rows(Path("results/per_image.csv"))] == names
    assert "their scores say little" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "step"), [([], "score_pictures"), (["--thresholds"], "score_thresholds")]
)
def test_a_data_set_that_is_prepared_anew_meanwhile_is_not_scored(
    arguments, step, tmp_path, monkeypatch
):
    data = save_data_set(tmp_path / "data", np.ones((2, 16, 16, 1), np.uint8))
    folder, real = save_checkpoint(tmp_path / "checkpoints"), getattr(evaluation, step)

    def prepared_anew(*values):
        summary = json.loads((data / "dataset.json").read_text())
        (data / "dataset.json").write_text(json.dumps(summary | {"sha256": "another"}))
        return real(*values)

    monkeypatch.setattr(evaluation, step, prepared_anew)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data), *arguments])
    with pytest.raises(InputError, match=r"prepared anew while it was read; run the same command"):
        evaluation.main()
    assert not (Path("results") / "metrics.json").exists()
    assert not (folder / "thresholds.json").exists()


def test_a_threshold_is_chosen_on_the_validation_split_and_used(tmp_path, monkeypatch, capsys):
    data = save_data_set(tmp_path / "data", np.ones((2, 16, 16, 1), np.uint8))
    folder = save_checkpoint(tmp_path / "checkpoints", polyp_fraction=0.25)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data)])
    monkeypatch.setattr(evaluation, "THRESHOLD", "validation")
    with pytest.raises(InputError, match=r"thresholds\.json: is missing, .*--thresholds"):
        evaluation.main()
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data), "--thresholds"])
    evaluation.main()
    out = capsys.readouterr().out
    assert "validation split of" in out
    stored = json.loads((folder / "thresholds.json").read_text())
    validation = evaluation.PreparedPictures("validation", data)
    networks = evaluation.choose_networks([folder], tta=False)
    _, (predict,), size, _ = evaluation.load_prediction(networks, tta=False)
    for row in stored["thresholds"]:
        scored = Scored(row["threshold"])
        score_pictures([[predict]], [scored], validation, size, 32)
        assert row["image_dice"] == image_scores(scored.counts)["dice"].mean()
    assert stored["temperature"] == fit_temperature(scored.curve)
    assert stored["threshold"] < 0.5  # all of the validation mask is polyp, and the network doubts
    assert not Path("results").exists()
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data)])
    evaluation.main()
    assert f"is {stored['threshold']} or more" in capsys.readouterr().out
    unscaled = json.loads(Path("results/metrics.json").read_text())
    monkeypatch.setattr(evaluation, "TEMPERATURE", "validation")  # then the same pixels are polyp
    evaluation.main()
    assert f"scaled by a temperature of {stored['temperature']:.3g} is" in capsys.readouterr().out
    scaled = json.loads(Path("results/metrics.json").read_text())
    for name, metric in unscaled["metrics"].items():
        assert scaled["metrics"][name]["value"] == metric["value"]
    assert scaled["threshold"] != unscaled["threshold"]
    assert scaled["probabilities"] == unscaled["probabilities"]  # before and after, both times
    save_checkpoint(folder, data="another")
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--data", str(data), "--thresholds"])
    with pytest.raises(InputError, match="may have seen its validation split"):
        evaluation.main()
    save_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["descent"] = [{"data_source": "fold 2", "data_sha256": "another"}]
    (folder / "config.json").write_text(json.dumps(config))
    evaluation.main()
    assert "Beware: checkpoints began with a network of other data" in capsys.readouterr().out


def test_folds_are_pooled_each_by_its_own_network(tmp_path, monkeypatch, capsys):
    """The report of two folds: its metrics are those of all, its folds' those of each alone."""
    data = [str(folder) for folder in save_folds(tmp_path)]
    for seed, number in enumerate("01"):
        save_checkpoint(tmp_path / number, filters=4, seed=seed, data=f"abc{number}")
    first, second = (load([Path(number)], tta=False)[0] for number in "01")
    pictures = np.load(Path(data[0]) / "images.npy")
    assert ((first(pictures) >= 0.5) != (second(pictures) >= 0.5)).any()
    line = ["evaluation.py", "--data", *data, "--checkpoints"]
    monkeypatch.setattr("sys.argv", [*line, "1", "0"])
    with pytest.raises(InputError, match=r"^1: was trained on other data or another fold than"):
        evaluation.main()
    monkeypatch.setattr("sys.argv", [*line, "0", "1", "--compare", "0", "1"])
    evaluation.main()
    out = capsys.readouterr().out
    report = json.loads(Path("results/metrics.json").read_text())
    rows = read_rows(Path("results/per_image.csv"))
    assert [row["name"] for row in rows] == [f"n{number}" for number in range(6)]
    assert report["trained_on_this_data"] is True
    assert report["warnings"] == []
    assert report["compared"]["difference"]["metrics"]["f1"]["value"] == 0
    assert report["compared"]["folds"] == report["folds"]
    page = Path("results/index.html").read_text()
    for number, each, begin in zip("01", data, (0, 3), strict=True):
        arguments = ["--data", each, "--checkpoints", number, "--results", f"alone{number}"]
        monkeypatch.setattr("sys.argv", ["evaluation.py", *arguments])
        evaluation.main()
        assert read_rows(Path(f"alone{number}/per_image.csv"))[0]["name"] == f"n{begin}"
        alone = json.loads(Path(f"alone{number}/metrics.json").read_text())
        (its,) = [row for row in report["folds"] if row["data"] == each]
        assert its["metrics"] == {name: m["value"] for name, m in alone["metrics"].items()}
        assert (its["checkpoints"], its["images"]) == (number, 3)
        assert its["data_sha256"] == alone["data_sha256"]
        assert f'<th scope="row">{each}</th>' in page
    scores = np.array([row["metrics"]["f1"] for row in report["folds"]])
    for text, value in (("mean", scores.mean()), ("standard deviation", scores.std(ddof=1))):
        for lines in (out, Path("results/metrics.md").read_text()):
            starts = f"{text}  ", f"| {text} |"
            row = [line for line in lines.splitlines() if line.startswith(starts)]
            assert f"{value:.3f}" in row[0]
    dice = np.mean([float(row["dice"]) for row in rows])
    assert report["metrics"]["image_dice"]["value"] == pytest.approx(dice, abs=1e-5)


def test_predictions_of_different_sizes_are_not_compared(tmp_path, monkeypatch):
    data = save_data_set(tmp_path / "data", np.ones((2, 16, 16, 1), np.uint8))
    for size in (16, 32):
        save_checkpoint(tmp_path / str(size), size=size)
    line = ["evaluation.py", "--data", str(data), "--checkpoints", "16", "--compare", "32"]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(
        InputError, match=r"^32: its network takes 32 pixels a side, the test split"
    ):
        evaluation.main()
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--images a", "--images and --masks go together"),
        ("--masks a", "--images and --masks go together"),
        ("--splits a --thresholds", "--thresholds and --splits do not go together"),
        ("--images a --masks b --archive c", "--images and --archive do not go together"),
        ("--thresholds --split test", "--thresholds and --split do not go together"),
        ("--thresholds --compare a", "--thresholds and --compare do not go together"),
        ("a.png --compare a", "PICTURE_OR_FOLDER and --compare do not go together"),
        ("--list a --split test", "PICTURE_OR_FOLDER and --split do not go together"),
        ("a.png --thresholds", "PICTURE_OR_FOLDER and --thresholds do not go together"),
        ("--probabilities", "scores of labelled pictures and --probabilities do not go together"),
        ("--split valid", "invalid choice"),
        ("--data a b --split test", "--split: takes one folder of --data, not 2"),
        ("--data a b --thresholds", "--thresholds: takes one folder of --data, not 2"),
        ("--data a b", "--checkpoints: name the network of each of 2 --data, not 0"),
        ("--data a b --checkpoints c d --compare e", "--compare: name the network of each of 2"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluation.py", *arguments.split()])
    with pytest.raises(SystemExit):
        evaluation.main()
    assert words in capsys.readouterr().err.splitlines()[-1]
