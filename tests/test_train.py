"""The rules that follow from the history, and the step."""

import math

import pytest

import train
from model import build_unet, dice_loss
from shell import array_split, make_rows
from utils.augmentation import Pairs


def test_the_training_step_is_traced_once():
    """Neither the variables of Adam and the scores nor a shorter last batch have it traced anew."""
    network = build_unet(size=32, filters=2)
    train.compile_unet(network, dice_loss, 1e-3, 1.0)
    traces = []
    step = network.train_step
    network.train_step = lambda data: traces.append(1) or step(data)
    network.fit(Pairs(array_split(), 4, 2).dataset(), epochs=2, shuffle=False, verbose=0)
    assert len(traces) == 1


def test_a_phase_ends_after_its_epochs_or_its_patience(monkeypatch):
    monkeypatch.setattr(train, "PATIENCE", 3)
    assert not train.phase_is_over([], "bce", 5)
    assert train.phase_is_over([], "dice", 0)
    assert not train.phase_is_over(make_rows([0.1, 0.2, 0.3, 0.4]), "bce", 5)
    assert train.phase_is_over(make_rows([0.1, 0.2, 0.3, 0.4, 0.5]), "bce", 5)
    assert not train.phase_is_over(make_rows([0.5, 0.2, 0.3]), "bce", 99)
    assert train.phase_is_over(make_rows([0.5, 0.2, 0.3, 0.4]), "bce", 99)
    assert not train.phase_is_over(make_rows([0.5, 0.2, 0.3, 0.4]), "dice", 5)


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(SystemExit, match="epoch 2 is not finite; try a lower learning rate"):
        train.check_health(make_rows([0.1, 0.2], loss=math.nan), "bce")


def test_a_collapsed_network_ends_the_training():
    with pytest.raises(SystemExit, match=r"no polyp predicted .* for 10 epochs"):
        train.check_health(make_rows([0.0] * 10, fraction=0.0), "bce")
    train.check_health(make_rows([0.0] * 9, fraction=0.0), "bce")
    train.check_health(make_rows([0.1]) + make_rows([0.0] * 9, fraction=0.0)[1:], "bce")
