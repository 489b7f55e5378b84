"""The rules that follow from the history, and the step."""

import json
import math
import sys

import pytest

import train
from model import build_unet, dice_loss
from shell import array_split, make_rows
from utils.augmentation import Pairs
from utils.files import InputError

SETTINGS = {
    "bce_learning_rate": 1e-3,
    "decay": True,
    "optimizer": "muon",
    "clip_norm": 1.0,
}


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_the_training_step_is_traced_once(optimizer):
    """Neither the variables of optimizer and scores nor a smaller batch have it traced anew."""
    network = build_unet(size=32, filters=2, standardized=True)
    made = train.make_optimizer(SETTINGS | {"optimizer": optimizer}, "bce", 6)
    train.compile_unet(network, dice_loss, made, 0.5)
    traces = []
    step = network.train_step
    network.train_step = lambda data: traces.append(1) or step(data)
    network.fit(Pairs(array_split(), 4, 2).dataset(), epochs=2, shuffle=False, verbose=0)
    assert len(traces) == 1


def test_the_learning_rate_falls_to_zero_by_the_last_step():
    schedule = train.make_optimizer(SETTINGS, "bce", 100)._learning_rate
    assert [float(schedule(step)) for step in (0, 50, 100)] == pytest.approx([1e-3, 5e-4, 0])
    constant = train.make_optimizer(SETTINGS | {"decay": False}, "bce", 100)
    assert float(constant.learning_rate) == pytest.approx(1e-3)


def test_muon_steps_the_standardised_kernels_alone():
    network = build_unet(size=32, filters=2, standardized=True)
    optimizer = train.make_optimizer(SETTINGS, "bce", 6)
    optimizer.build(network.trainable_variables)
    by_adam = zip(network.trainable_variables, optimizer.adam_velocities, strict=True)
    by_muon = [variable.path for variable, velocity in by_adam if velocity is None]
    assert len(by_muon) == 18
    assert all(path.endswith(("_a/kernel", "_b/kernel")) for path in by_muon)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("FILTERS", 0), ("FILTERS", 16.0), ("BATCH_SIZE", 0), ("WORKERS", 0), ("SEED", -1)),
        *(("BCE_EPOCHS", -1), ("BCE_LEARNING_RATE", 0), ("DICE_LEARNING_RATE", math.nan)),
        *(("CLIP_NORM", 0), ("THRESHOLD", 0), ("THRESHOLD", 1), ("PRECISION", "half")),
        *(("OPTIMIZER", "sgd"), ("DECAY", "yes"), ("COLOURS", {"hue": 0.1})),
        *(("COLOURS", {"gamma": "much"}), ("COLOURS", None), ("COLLAPSED_EPOCHS", 0)),
    ],
)
def test_a_constant_that_cannot_be_worked_with_is_named(name, value, monkeypatch):
    monkeypatch.setattr(train, name, value)
    with pytest.raises(InputError, match=name):
        train.check_constants()


def test_settings_are_what_the_file_gives_back(monkeypatch):
    """A tuple, which JSON makes a list, would keep a training from going on."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    summary = {"image_size": 128, "source": "demo", "sha256": "a"}
    settings = train.collect_settings(train.parse_arguments(), summary)
    assert isinstance(train.AUGMENTATION["zoom_range"], tuple)
    assert json.loads(json.dumps(settings)) == settings


def test_one_phase_may_be_left_out_but_not_both(monkeypatch):
    monkeypatch.setattr(train, "BCE_EPOCHS", 0)
    train.check_constants()
    monkeypatch.setattr(train, "DICE_EPOCHS", 0)
    with pytest.raises(InputError, match="DICE_EPOCHS = 0: must be above 0"):
        train.check_constants()


def test_the_constants_can_be_worked_with(monkeypatch):
    train.check_constants()
    monkeypatch.setattr(train, "CLIP_NORM", None)
    monkeypatch.setattr(train, "COLOURS", {})
    train.check_constants()


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(SystemExit, match="epoch 2 is not finite; try a lower learning rate"):
        train.check_health(make_rows([0.1, 0.2], loss=math.nan), "bce")


def test_a_collapsed_network_ends_the_training():
    with pytest.raises(SystemExit, match=r"no polyp predicted .* for 10 epochs"):
        train.check_health(make_rows([0.0] * 10, fraction=0.0), "bce")
    train.check_health(make_rows([0.0] * 9, fraction=0.0), "bce")
    train.check_health(make_rows([0.1]) + make_rows([0.0] * 9, fraction=0.0)[1:], "bce")
