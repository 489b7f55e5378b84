"""Which networks are taken, what is refused of a checkpoint, and the threshold stored with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from model import build_unet
from utils.command import InputError
from utils.files import RESUME, file_sha256
from utils.prediction import networks
from utils.training.kernels import to_train

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
    assert networks.find_checkpoints(None, OWN, SHIPPED) == [Path(SHIPPED)]
    line = capsys.readouterr().out
    assert line == "checkpoints: holds no network yet; shipped is taken instead\n"
    make_checkpoint(OWN)
    assert networks.find_checkpoints(None, OWN, SHIPPED) == [Path(OWN)]
    assert capsys.readouterr().out == ""


def test_a_network_keeps_what_those_before_it_were_trained_on():
    first = make_checkpoint("first", data="a")
    kept = networks.line_of_descent(first)
    assert kept["from"] == file_sha256(first / "unet.keras")
    assert kept["descent"] == [{"data_source": "demo", "data_sha256": "a"}]
    second = make_checkpoint("second", data="b")
    config = networks.read_config(second)
    assert networks.ancestors(config["settings"]) == []
    config["settings"] |= kept
    (second / "config.json").write_text(json.dumps(config))
    assert networks.ancestors(config["settings"]) == kept["descent"]
    both = [data["data_sha256"] for data in networks.line_of_descent(second)["descent"]]
    assert both == ["b", "a"]
    del config["settings"]["descent"]  # as trainings left it once
    assert networks.ancestors(config["settings"]) == networks.UNKNOWN
    for damaged in (None, 5, [{}], ["x"]):
        config["settings"]["descent"] = damaged
        (second / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"second/config\.json: is damaged"):
            networks.read_config(second)
    (first / "config.json").unlink()
    assert networks.line_of_descent(first)["descent"] == networks.UNKNOWN


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["checkpoints"], r"checkpoints/unet\.keras: no trained model there yet; run python train"),
        (["my/net s"], r"there; run python train\.py --checkpoints 'my/net s'$"),
        (["my net"], r"^my net/unet\.keras: no trained model there, but in shipped, a$"),
        (["shiped"], "there, but in shipped, a$"),
        (["a", "b/../a"], "named twice"),
        (["a/unet.keras"], "is a file, and a network is named by its folder; write pict"),
        (["a", "my net"], r"but in shipped, a; write pictures before --checkpoints$"),
    ],
)
def test_named_checkpoints_never_fall_back(named, words):
    for name in ("a", SHIPPED):
        make_checkpoint(name)
    Path("b").mkdir()
    with pytest.raises(InputError, match=words):
        networks.find_checkpoints(named, OWN, SHIPPED)


def test_what_a_network_is_says_how_far_its_training_went(tmp_path):
    folder, settings = make_checkpoint(tmp_path / "a"), {"filters": 8, "seed": 3}
    phased = settings | {"phases": [{"epochs": 76}, {"epochs": 8}]}
    start = f"{folder}: 8 filters, seed 3"
    once = settings | {"phases": [{"epochs": 1}]}
    trained = (phased, ", trained for 84 epochs"), (once, ", trained for 1 epoch")
    for config, words in ((settings, ""), *trained):
        assert networks.name_network(folder, {"settings": config}) == start + words
    (folder / RESUME).mkdir()
    history, name = folder / "history.csv", {"settings": phased}
    unfinished = "; its training is not finished"
    assert networks.name_network(folder, name) == start + unfinished
    history.write_text("phase,epoch,seconds\n1,1,9.5\n2,1,9.5\n2,2,9.5\n")
    assert networks.name_network(folder, name) == f"{start}, after epoch 2 of phase 2{unfinished}"
    history.write_bytes(b"\xff\n")
    assert networks.name_network(folder, name) == start + unfinished


def test_until_ones_own_is_finished_the_shipped_one_is_taken_where_asked_for(capsys):
    own, shipped = make_checkpoint(OWN), make_checkpoint(SHIPPED)
    (own / RESUME).mkdir()
    assert networks.find_checkpoints(None, OWN, SHIPPED, finished=True) == [shipped]
    line = f"{OWN}: its training is not finished; {SHIPPED} is taken instead\n"
    assert capsys.readouterr().out == line
    assert networks.find_checkpoints(None, OWN, SHIPPED) == [own]
    assert networks.find_checkpoints([OWN], OWN, SHIPPED, finished=True) == [own]


def test_a_config_that_cannot_be_used_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match=r"config\.json: is missing.*or train again"):
        networks.read_config(tmp_path)
    many = '{"settings": {"filters": "many"}}'
    for text in ("{", "[]", "7", "{}", '{"settings": 7}', many, "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"config\.json: is damaged; .*or train again"):
            networks.read_config(tmp_path)
    path.write_text('{"settings": {"filters": 2, "seed": 1}}')
    with pytest.raises(InputError, match=r"config\.json: lacks data_sha256, data_source; .*again"):
        networks.read_config(tmp_path)


def make_networks(name):
    return networks.read_networks([make_checkpoint(name)])


CHOICES = {"threshold": 0.3, "temperature": 2.5, "level": 0.75}
ROWS = [{"threshold": 0.3, "image_dice": 0.5}]


def test_what_is_stored_comes_back():
    chosen = make_networks("a")
    networks.store_choices(chosen, False, "3 images", CHOICES, ROWS)
    assert networks.stored_choices(*chosen[:3], tta=False) == (0.3, 2.5, 0.75)
    stored = json.loads((chosen.folders[0] / "thresholds.json").read_text())
    assert stored["thresholds"] == ROWS
    assert stored["chosen_on"] == "3 images"


def test_a_threshold_that_does_not_fit_is_refused_with_the_command_that_chooses_one():
    chosen = make_networks("a net")
    (folder,), (config,), weights = chosen[:3]
    other = {"settings": config["settings"] | {"data_sha256": "other"}}
    run = r"; run python evaluation\.py --thresholds --checkpoints 'a net'"

    def refuse(words, folders=(folder,), its_config=config, tta=False, weights=weights):
        with pytest.raises(InputError, match=words) as error:
            networks.stored_choices(folders, [its_config], weights, tta)
        assert "\n" not in str(error.value)

    refuse(f"thresholds.json: is missing.*{run}$")
    refuse(f"is missing.*{run} --tta$", tta=True)
    networks.store_choices(chosen, False, "3 images", CHOICES, ROWS)
    refuse("stored with one network, not with 2 together", folders=(folder, folder))
    refuse(f"another data set{run}$", its_config=other)
    refuse(f"another choice of --tta{run} --tta$", tta=True)
    (folder / "unet.keras").write_bytes(b"trained anew")
    refuse(f"another network{run}$", weights=networks.hash_weights([folder]))
    for text in ("", "{", "[]", '{"threshold": 2}', '{"threshold": "x"}', '{"threshold": 0.5}'):
        (folder / "thresholds.json").write_text(text)
        refuse(f"is damaged{run}$")


@pytest.fixture
def small():
    return build_unet(size=32, filters=4)


def test_rounded_weights_predict_what_mixed_precision_does(small, tmp_path):
    small.save(tmp_path / "unet.keras")
    network = networks.load_unet(tmp_path / "unet.keras", "mixed_bfloat16")
    assert {weight.dtype for weight in network.weights[:-2]} == {"bfloat16"}
    assert {weight.dtype for weight in network.weights[-2:]} == {"float32"}  # the output layer's
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    loaded = networks.load_unet(tmp_path / "unet.keras")
    np.testing.assert_array_equal(loaded(pictures), small(pictures))
    mixed = to_train(small, precision="mixed_bfloat16")
    np.testing.assert_array_equal(network(pictures), mixed(pictures))


def test_a_missing_model_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match=r"unet\.keras: .*run python train\.py"):
        networks.load_unet(tmp_path / "unet.keras")


def test_a_damaged_model_is_named(tmp_path):
    (tmp_path / "unet.keras").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"unet\.keras: not a model"):
        networks.load_unet(tmp_path / "unet.keras")


def test_a_model_that_is_no_file_or_no_numbers_is_named(small, tmp_path):
    path = tmp_path / "unet.keras"
    path.mkdir()
    with pytest.raises(ValueError, match=r"unet\.keras: is a folder, .*; move it away"):
        networks.load_unet(path)
    path.rmdir()
    small.get_layer("polyp").bias.assign([np.nan])
    small.save(path)
    with pytest.raises(ValueError, match=r"unet\.keras: holds weights that are no numbers; train"):
        networks.load_unet(path)


def test_a_network_that_cannot_be_loaded_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "unet.keras"
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"unet\.keras: not a model .*; train it again"):
        networks.load_unet(path)
    with pytest.raises(ValueError, match=r"unet\.keras: not a model that Keras can load; mend it$"):
        networks.load_unet(path, way_out="mend it")
    path.unlink()
    with pytest.raises(ValueError, match=r"unet\.keras: no trained model there; mend it$"):
        networks.load_unet(path, way_out="mend it")
