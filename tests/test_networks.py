"""Which networks are taken, what is refused of a checkpoint, and the threshold stored with it."""

import json
from pathlib import Path

import pytest

from utils.command import InputError
from utils.files import file_sha256
from utils.prediction import networks as checkpoints

OWN, SHIPPED = "checkpoints", "shipped"


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_checkpoint(name, data="abc", weights=b"weights"):
    folder = Path(name)
    folder.mkdir(parents=True)
    (folder / "unet.keras").write_bytes(weights)
    settings = {"filters": 1, "seed": 0, "data_source": "demo", "data_sha256": data}
    (folder / "config.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_ones_own_network_comes_before_the_shipped_one(capsys):
    make_checkpoint(SHIPPED)
    assert checkpoints.find_checkpoints(None, OWN, SHIPPED) == [Path(SHIPPED)]
    line = capsys.readouterr().out
    assert line == "checkpoints: no network of yours there yet; taking that in shipped\n"
    make_checkpoint(OWN)
    assert checkpoints.find_checkpoints(None, OWN, SHIPPED) == [Path(OWN)]
    assert capsys.readouterr().out == ""


def test_a_network_keeps_what_those_before_it_were_trained_on():
    first = make_checkpoint("first", data="a")
    kept = checkpoints.line_of_descent(first)
    assert kept["from"] == file_sha256(first / "unet.keras")
    assert kept["descent"] == [{"data_source": "demo", "data_sha256": "a"}]
    second = make_checkpoint("second", data="b")
    config = checkpoints.read_config(second)
    assert checkpoints.ancestors(config["settings"]) == []
    config["settings"] |= kept
    (second / "config.json").write_text(json.dumps(config))
    assert checkpoints.ancestors(config["settings"]) == kept["descent"]
    both = [data["data_sha256"] for data in checkpoints.line_of_descent(second)["descent"]]
    assert both == ["b", "a"]
    del config["settings"]["descent"]  # as trainings left it once
    assert checkpoints.ancestors(config["settings"]) == checkpoints.UNKNOWN
    for damaged in (None, 5, [{}], ["x"]):
        config["settings"]["descent"] = damaged
        (second / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"second/config\.json: is damaged"):
            checkpoints.read_config(second)
    (first / "config.json").unlink()
    assert checkpoints.line_of_descent(first)["descent"] == checkpoints.UNKNOWN


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["checkpoints"], r"checkpoints/unet\.keras: no trained model there yet; run python train"),
        (["my net"], r"run python train\.py --checkpoints 'my net'$"),
        (["a", "b/../a"], "named twice"),
        (["a/unet.keras"], "is a file; networks are named by the folders"),
        (["a", "my net"], r"'my net'; pictures stand before --checkpoints$"),
    ],
)
def test_named_checkpoints_never_fall_back(named, words):
    for name in ("a", SHIPPED):
        make_checkpoint(name)
    Path("b").mkdir()
    with pytest.raises(InputError, match=words):
        checkpoints.find_checkpoints(named, OWN, SHIPPED)


def test_a_config_that_cannot_be_used_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match=r"config\.json: is missing.*or train again"):
        checkpoints.read_config(tmp_path)
    many = '{"settings": {"filters": "many"}}'
    for text in ("{", "[]", "7", "{}", '{"settings": 7}', many, "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"config\.json: is damaged; .*or train again"):
            checkpoints.read_config(tmp_path)
    path.write_text('{"settings": {"filters": 2, "seed": 1}}')
    with pytest.raises(InputError, match=r"config\.json: lacks data_sha256, data_source; .*again"):
        checkpoints.read_config(tmp_path)


def make_networks(name):
    folders = [make_checkpoint(name)]
    configs = [checkpoints.read_config(folder) for folder in folders]
    return checkpoints.Networks(folders, configs, checkpoints.hash_weights(folders), None)


def rows_of(scores):
    return [{"threshold": threshold, "image_dice": dice} for threshold, dice in scores.items()]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({0.1: 0.7, 0.5: 0.8, 0.9: 0.9}, 0.9),
        ({0.1: 0.9, 0.4: 0.9, 0.9: 0.9}, 0.4),  # of equals the one nearest to 0.5
    ],
)
def test_the_stored_threshold_is_the_best_by_dice(scores, best):
    networks = make_networks("a")
    row = checkpoints.store_threshold(networks, False, 3, rows_of(scores), 2.5)
    assert row == {"threshold": best, "image_dice": scores[best]}
    folder = networks.folders[0]
    assert checkpoints.stored_choices(*networks[:3], tta=False) == (best, 2.5)
    stored = json.loads((folder / "thresholds.json").read_text())
    assert stored["thresholds"] == rows_of(scores)
    assert "3 images of the validation split" in stored["chosen_by"]


def test_a_threshold_that_does_not_fit_is_refused_with_the_command_that_chooses_one():
    networks = make_networks("a net")
    (folder,), (config,), weights = networks[:3]
    other = {"settings": config["settings"] | {"data_sha256": "other"}}
    run = r"; run python evaluation\.py --thresholds --checkpoints 'a net'"

    def refuse(words, folders=(folder,), its_config=config, tta=False, weights=weights):
        with pytest.raises(InputError, match=words) as error:
            checkpoints.stored_choices(folders, [its_config], weights, tta)
        assert "\n" not in str(error.value)

    refuse(f"thresholds.json: is missing.*{run}$")
    refuse(f"is missing.*{run} --tta$", tta=True)
    checkpoints.store_threshold(networks, False, 3, rows_of({0.3: 0.5}), 2.5)
    refuse("stored with one network, not with 2 together", folders=(folder, folder))
    refuse(f"another data set{run}$", its_config=other)
    refuse(f"another choice of --tta{run} --tta$", tta=True)
    (folder / "unet.keras").write_bytes(b"trained anew")
    refuse(f"another network{run}$", weights=checkpoints.hash_weights([folder]))
    for text in ("", "{", "[]", '{"threshold": 2}', '{"threshold": "x"}', '{"threshold": 0.5}'):
        (folder / "thresholds.json").write_text(text)
        refuse(f"is damaged{run}$")
