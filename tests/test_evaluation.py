"""What evaluation.py says of its scores, the networks that it loads, and prediction."""

import io
import json
import os
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import evaluation
from model import build_unet, load_unet
from utils.dataset import SPLITS, Split
from utils.files import InputError
from utils.metrics import confusion_counts, image_scores


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save_checkpoint(folder, filters=1, size=16, seed=0, data="abc"):
    """Leave an untrained network in a folder as train.py does."""
    keras.utils.set_random_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    build_unet(size, filters=filters).save(folder / "unet.keras")
    settings = {"filters": filters, "seed": seed, "data_source": "demo", "data_sha256": data}
    (folder / "config.json").write_text(json.dumps({"settings": settings}))
    return folder


def save_data_set(folder, masks, size=16):
    """Leave a prepared data set: the masks' pairs to test, one to train, one to validate."""
    folder.mkdir()
    splits = ["train", "validation"] + ["test"] * len(masks)
    np.save(folder / "images.npy", pictures_of(len(splits), size, size, 3))
    np.save(folder / "masks.npy", np.concatenate([np.ones((2, size, size, 1), np.uint8), masks]))
    lines = [f"n{row},{row},{split},{min(row, 2)}" for row, split in enumerate(splits)]
    (folder / "splits.csv").write_text("\n".join(["name,group,split,fold", *lines]) + "\n")
    summary = {"source": "demo", "sha256": "abc", "image_size": size}
    summary |= {key: dict.fromkeys(SPLITS, 1) for key in ("pairs", "polyp_fraction")}
    (folder / "dataset.json").write_text(json.dumps(summary))
    return folder


def pictures_of(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_every_text_follows_the_threshold(monkeypatch):
    monkeypatch.setattr(evaluation, "THRESHOLD", 0.3)
    metrics = evaluation.collect_metrics(np.array([[1, 2, 3, 4]]), np.zeros(1, int))
    texts = [metric["definition"] for metric in metrics.values()]
    assert all("threshold 0.3" in text for text in texts)
    assert evaluation.describe_prediction(1, False).endswith("is 0.3 or more")


@pytest.mark.parametrize("value", [0, 1, -0.5, "0.5", float("nan")])
def test_an_impossible_threshold_is_named(value, monkeypatch):
    monkeypatch.setattr(evaluation, "THRESHOLD", value)
    monkeypatch.setattr("sys.argv", ["evaluation.py"])
    with pytest.raises(InputError, match=r"^THRESHOLD = .*: must be a number above 0 and below 1"):
        evaluation.main()


@pytest.mark.parametrize("value", [0, 1.5, "32"])
def test_an_impossible_batch_size_is_named(value, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_SIZE", value)
    monkeypatch.setattr("sys.argv", ["evaluation.py"])
    with pytest.raises(InputError, match=r"^BATCH_SIZE = .*: must be a whole number from 1 on"):
        evaluation.main()


def test_every_metric_says_what_it_is():
    random = np.random.default_rng(0)
    counts = confusion_counts(*random.integers(0, 2, (2, 5, 16, 16, 1)))
    metrics = evaluation.collect_metrics(counts, np.arange(len(counts)))
    assert list(metrics) == [
        *("mean_iou", "accuracy", "precision", "recall", "f1", "polyp_iou"),
        *("image_dice", "image_iou"),
    ]
    assert all("threshold 0.5" in metric["definition"] for metric in metrics.values())
    assert metrics["image_dice"]["interval"][0] <= metrics["image_dice"]["value"]
    table = evaluation.format_table(metrics).splitlines()
    assert len(table) == len(metrics)
    assert f"{metrics['recall']['value']:.3f}" in table[3]


def test_several_networks_and_views_are_the_mean_of_all(tmp_path):
    folders = [save_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    pictures = pictures_of(2, 16, 16, 3)
    single = [evaluation.load_predictor([folder], tta=True)[0] for folder in folders]
    both, size, _ = evaluation.load_predictor(folders, tta=True)
    assert size == 16
    expected = np.mean([predict(pictures) for predict in single], axis=0)
    np.testing.assert_allclose(both(pictures), expected, atol=1e-6)
    plain = evaluation.load_predictor(folders, tta=False)[0]
    assert np.abs(plain(pictures) - expected).max() > 1e-4


def test_networks_of_several_sizes_are_not_averaged(tmp_path):
    folders = [save_checkpoint(tmp_path / str(size), size=size) for size in (16, 32)]
    with pytest.raises(InputError, match=r"32: its network takes 32 pixels a side, that of .*16"):
        evaluation.load_predictor(folders, tta=False)


def test_what_a_prediction_is_says_all_that_is_averaged():
    say = evaluation.describe_prediction
    views = "the 8 flips and quarter turns of each picture"
    assert say(1, False) == "a pixel is called polyp if its probability is 0.5 or more"
    assert "probability, the mean over 2 networks, is" in say(2, False)
    assert f"probability, the mean over {views}, is" in say(1, True)
    assert f"probability, the mean over 3 networks and {views}, is" in say(3, True)


def test_ones_own_network_comes_before_the_shipped_one(tmp_path, capsys):
    shipped = Path(evaluation.__file__).parent / evaluation.SHIPPED_CHECKPOINTS
    assert evaluation.find_checkpoints(None) == [shipped]
    line = capsys.readouterr().out
    assert line.startswith("checkpoints: no network of yours there yet; taking that in")
    assert line.rstrip().endswith("hyperkvasir-16")
    save_checkpoint(tmp_path / "checkpoints")
    assert evaluation.find_checkpoints(None) == [Path("checkpoints")]
    assert capsys.readouterr().out == ""


def test_named_checkpoints_never_fall_back(tmp_path):
    (tmp_path / "my net").mkdir()
    with pytest.raises(InputError, match=r"checkpoints/unet\.keras: no trained model there yet"):
        evaluation.find_checkpoints(["checkpoints"])
    with pytest.raises(InputError, match=r"run python train\.py --checkpoints 'my net'$"):
        evaluation.find_checkpoints(["my net"])
    save_checkpoint(tmp_path / "a")
    with pytest.raises(InputError, match="named twice"):
        evaluation.find_checkpoints(["a", "../" + tmp_path.name + "/a"])
    with pytest.raises(InputError, match=r"is a file; --checkpoints takes the folders"):
        evaluation.find_checkpoints(["a/unet.keras"])
    with pytest.raises(InputError, match=r"'my net'; pictures stand before --checkpoints$"):
        evaluation.find_checkpoints(["a", "my net"])


def test_a_config_that_cannot_be_used_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match=r"config\.json: is missing.*or train again"):
        evaluation.read_config(tmp_path)
    for text in ("{", "[]", "7", "{}", '{"settings": 7}', "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"config\.json: is damaged; .*or train again"):
            evaluation.read_config(tmp_path)
    path.write_text('{"settings": {"filters": 2, "seed": 1}}')
    with pytest.raises(InputError, match=r"config\.json: lacks data_sha256, data_source; .*again"):
        evaluation.read_config(tmp_path)


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
    pictures = pictures_of(1, 16, 16, 3)
    loaded = load_unet(tmp_path / "unet.keras", "mixed_bfloat16")
    np.testing.assert_array_equal(loaded(pictures), network(pictures))


@pytest.mark.parametrize("polyps", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 4])
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
    assert sorted(os.listdir("results")) == sorted(
        [
            *("metrics.json", "per_image.csv", "predictions.png", "precision_recall.png"),
            *("dice_histogram.png", "dice_by_size.png"),
        ]
    )


@pytest.mark.parametrize("count", [1, 2, 4, 9, 10, 40])
def test_predictions_show_each_case_once_and_by_name(count, monkeypatch):
    shown = []
    monkeypatch.setattr(evaluation, "save_sheet", lambda *args: shown.extend(args))
    masks = (np.random.default_rng(0).random((count, 16, 16, 1)) < 0.5).astype(np.uint8)
    split = Split(pictures_of(count, 16, 16, 3), masks, [f"n{n}" for n in range(count)], None)

    def predict(pictures):
        return (pictures[..., :1] > 127).astype(np.float32)

    dice = image_scores(confusion_counts(masks, predict(split.images) >= 0.5))[:, 0]
    evaluation.save_predictions("a.png", predict, split, dice)
    _, sheet, titles, title = shown
    lines = [text.split("\n") for text in titles]
    names = [name for _, name, _ in lines]
    assert len(set(names)) == len(names) == min(count, 9)
    scores = [dice[int(name[1:])] for name in names]
    assert scores == sorted(scores, reverse=True)
    assert [text for _, _, text in lines] == [f"Dice {score:.3f}" for score in scores]
    assert scores[0] == dice.max()
    assert scores[-1] == dice.min()
    places = ["best: "] * 3 + ["median: "] * 3 + ["worst: "] * 3 if count > 9 else [""] * count
    spread = {10: [1, 2, 3, 4, 5, 6, 8, 9, 10], 40: [1, 2, 3, 19, 20, 21, 38, 39, 40]}
    ranks = spread.get(count, range(1, count + 1))
    assert [text for text, _, _ in lines] == [
        f"{place}{rank} of {count}" for place, rank in zip(places, ranks, strict=True)
    ]
    for number, name in enumerate(names):
        np.testing.assert_array_equal(sheet["picture"][number], split.images[int(name[1:])])
    assert "threshold 0.5" in title
