"""The rules that follow from the history, and the step."""

import json
import math
import sys

import keras
import numpy as np
import pytest

import train
from model import build_unet, dice_loss
from shell import array_split, full_disk, make_rows
from utils.command import InputError, check_constants
from utils.devices import make_strategy
from utils.prediction.networks import load_unet
from utils.training.augmentation import Pairs, make_generator
from utils.training.backups import backups, save_backup
from utils.training.epochs import EpochKeeper, averaged_weights, best_row, check_health
from utils.training.kernels import SYMMETRIES, to_train
from utils.training.resume import begin, check_built, describe_built, earlier_training

PHASES = [
    {"epochs": 3, "learning_rate": 1e-3, "bce": 0, "dice": 1},
    {"epochs": 2, "learning_rate": 1e-2, "bce": 0, "dice": 1, "average": 0.5},
]
SETTINGS = {
    "from": None,
    "phases": PHASES,
    "decay": True,
    "warm_up": 0,
    "optimizer": "muon",
    "clip_norm": 1.0,
    "threshold": 0.5,
}
SUMMARY = {"image_size": 128, "source": "demo", "sha256": "a"}
LOGS = {"loss": 0.5, "dice_score": 0.5, "predicted_fraction": 0.1}


def changed(number, **change):
    """Return PHASES with one of them, counted from 0, changed."""
    return [phase | change if n == number else phase for n, phase in enumerate(PHASES)]


def check(module):
    check_constants("train.py", module.constants() | module.other_constants())


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_the_training_step_is_traced_once(optimizer):
    """Neither the variables of optimizer and scores nor a smaller batch have it traced anew."""
    network = to_train(build_unet(size=32, filters=2), "standardized")
    made = train.make_optimizer(SETTINGS | {"optimizer": optimizer}, 1, 6)
    train.compile_unet(network, dice_loss, made, 0.5)
    traces = []
    step = network.train_step
    network.train_step = lambda data: traces.append(1) or step(data)
    network.fit(Pairs(array_split(), 4, 2).dataset(), epochs=2, shuffle=False, verbose=0)
    assert len(traces) == 1


def test_the_learning_rate_falls_to_zero_by_the_last_step():
    schedule = train.make_optimizer(SETTINGS, 1, 100)._learning_rate
    assert [float(schedule(step)) for step in (0, 50, 100)] == pytest.approx([1e-3, 5e-4, 0])
    constant = train.make_optimizer(SETTINGS | {"decay": False}, 1, 100)
    assert float(constant.learning_rate) == pytest.approx(1e-3)


def test_the_rate_of_a_wide_network_rises_first():
    """From 0, in the first phase alone, whichever that is, and over half of it at most."""
    wide = SETTINGS | {"warm_up": 40, "phases": changed(1, average=0)}
    schedule = train.make_optimizer(wide, 1, 100)._learning_rate
    rates = [float(schedule(step)) for step in (0, 20, 40, 70, 100)]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 5e-4, 0])
    short = train.make_optimizer(wide, 1, 20)._learning_rate
    assert [float(short(step)) for step in (5, 10, 20)] == pytest.approx([5e-4, 1e-3, 0])
    assert float(train.make_optimizer(wide, 1, 1)._learning_rate(0)) == pytest.approx(1e-3)
    assert float(train.make_optimizer(wide, 2, 100)._learning_rate(0)) == pytest.approx(1e-2)
    alone = wide | {"phases": [PHASES[0] | {"epochs": 0}, wide["phases"][1]]}
    alone = train.make_optimizer(alone, 2, 100)._learning_rate
    assert float(alone(0)) == 0


def test_the_second_phase_keeps_its_rate_and_a_mean_that_reaches_back_over_half_of_it():
    optimizer = train.make_optimizer(SETTINGS, 2, 100)
    assert float(optimizer.learning_rate) == pytest.approx(1e-2)
    assert optimizer.use_ema
    assert optimizer.ema_momentum == pytest.approx(1 - 1 / 50)
    assert train.make_optimizer(SETTINGS, 2, 1).ema_momentum == 0
    goes_on = SETTINGS | {"phases": changed(0, epochs=0), "from": "a network's hash"}
    assert train.make_optimizer(goes_on, 2, 100).use_ema


@pytest.mark.parametrize(("phase", "change"), [(1, {"average": 0}), (0, {"epochs": 0})])
def test_without_a_mean_or_a_first_phase_the_second_one_decays(phase, change):
    """A mean that began with weights drawn at random would hold some of them to the end."""
    optimizer = train.make_optimizer(SETTINGS | {"phases": changed(phase, **change)}, 2, 100)
    assert float(optimizer._learning_rate(100)) == 0
    assert not optimizer.use_ema


def test_muon_steps_the_standardised_kernels_alone():
    network = to_train(build_unet(size=32, filters=2), "standardized")
    optimizer = train.make_optimizer(SETTINGS, 1, 6)
    optimizer.build(network.trainable_variables)
    by_adam = zip(network.trainable_variables, optimizer.adam_velocities, strict=True)
    by_muon = [variable.path for variable, velocity in by_adam if velocity is None]
    assert len(by_muon) == 18
    assert all(path.endswith(("_a/kernel", "_b/kernel")) for path in by_muon)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("FILTERS", 0), ("FILTERS", 16.0), ("BATCH_SIZE", 0), ("WORKERS", 0), ("SEED", -1)),
        *(("WARM_UP", -1), ("WARM_UP", 1.5), ("WARM_UP_ABOVE", -1)),
        *(("PHASES", []), ("PHASES", None), ("PHASES", [{"epochs": 3}])),
        *(("CLIP_NORM", 0), ("THRESHOLD", 0), ("THRESHOLD", 1), ("PRECISION", "half")),
        *(("OPTIMIZER", "sgd"), ("DECAY", "yes"), ("COLOURS", {"hue": 0.1})),
        *(("KERNELS", "square"), ("DROPPED", 1), ("DROPPED", -0.1)),
        *(("COLOURS", {"gamma": "much"}), ("COLOURS", None), ("AUGMENTATION", [])),
    ],
)
def test_a_constant_that_cannot_be_worked_with_is_named(name, value, monkeypatch):
    monkeypatch.setattr(train, name, value)
    with pytest.raises(InputError, match=name):
        check(train)


@pytest.mark.parametrize(
    "change",
    [
        *({"epochs": -1}, {"epochs": 1.5}, {"learning_rate": 0}, {"learning_rate": math.nan}),
        *({"bce": -1}, {"bce": 0, "dice": 0}, {"average": -0.1}, {"rate": 1}),
    ],
)
def test_a_phase_that_cannot_be_trained_is_named(change, monkeypatch):
    monkeypatch.setattr(train, "PHASES", changed(1, **change))
    with pytest.raises(InputError, match=r"^PHASES = .*: must be a list of phases"):
        check(train)


def test_kernels_are_named_as_the_model_names_them():
    assert list(SYMMETRIES) == train.KERNEL_KINDS
    assert list(SYMMETRIES.values()) == sorted(SYMMETRIES.values())


def test_settings_are_what_the_file_gives_back(monkeypatch):
    """A tuple, which JSON makes a list, would keep a training from going on."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    settings = train.collect_settings(train.parse_arguments(), SUMMARY)
    assert isinstance(train.AUGMENTATION["zoom_range"], tuple)
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("arguments", "decay", "steps"),
    [
        ([], True, train.WARM_UP),
        (["--filters", "24"], True, 0),
        (["--filters", "32"], True, train.WARM_UP),
        (["--filters", "32"], False, 0),
        (["--filters", "64", "--original"], True, 0),
    ],
)
def test_wide_networks_have_their_rate_rise_first(arguments, decay, steps, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setattr(train, "DECAY", decay)
    assert train.collect_settings(train.parse_arguments(), SUMMARY)["warm_up"] == steps


@pytest.mark.parametrize("arguments", [[], ["--original"]])
def test_a_network_is_as_grey_as_that_which_it_begins_with(arguments, tmp_path, monkeypatch):
    (tmp_path / "unet.keras").touch()
    theirs = {"filters": 16, "grey": not arguments, "kernels": "plain", "seed": 1}
    theirs |= {"data_source": "demo", "data_sha256": "a"}
    config = {"settings": theirs, "machine": {"precision": "float32"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--from", str(tmp_path)])
    settings = train.collect_settings(train.parse_arguments(), SUMMARY)
    assert (settings["grey"], settings["filters"]) == (not arguments, 16)


def test_what_no_file_gives_back_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(train, "COLOURS", {"gamma": np.float32(0.5)})
    with pytest.raises(InputError, match=r"^train\.py: a constant holds more than plain numbers"):
        train.collect_settings(train.parse_arguments(), SUMMARY)


def test_one_phase_may_be_left_out_but_not_both(monkeypatch):
    monkeypatch.setattr(train, "PHASES", changed(0, epochs=0))
    check(train)
    monkeypatch.setattr(train, "PHASES", [phase | {"epochs": 0} for phase in PHASES])
    with pytest.raises(InputError, match="at least one with an epoch"):
        check(train)


def test_the_constants_can_be_worked_with(monkeypatch):
    check(train)
    monkeypatch.setattr(train, "CLIP_NORM", None)
    monkeypatch.setattr(train, "COLOURS", {})
    check(train)


def test_the_best_row_is_the_first_of_the_highest_score():
    rows = make_rows([0.1, 0.8, 0.8, 0.3])
    assert best_row(rows) is rows[1]


def test_the_best_row_is_one_of_the_last_phase():
    rows = make_rows([0.1, 0.9]) + make_rows([0.7, 0.8], phase=2)
    assert best_row(rows) is rows[3]
    assert best_row(rows[:2]) is rows[1]


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(
        SystemExit, match="epoch 2 of phase 1 is not finite; try a lower learning rate"
    ):
        check_health(make_rows([0.1, 0.2], loss=math.nan), 45)


@pytest.fixture
def keeper(tmp_path):
    """Return what keeps a training of 16 x 16 pictures that has not begun."""
    split = array_split(size=16)
    plain = build_unet(size=16, filters=1)
    network = to_train(plain, "standardized")
    pairs, validation = Pairs(split, 8, 1, make_generator({})), Pairs(split, 8, 1)
    built = SETTINGS | {"seed": 1}, tmp_path, plain, network, make_strategy(), pairs, validation
    keeper = EpochKeeper(train.Training(*built, lambda: None, []), 1)
    train.compile_unet(network, dice_loss, train.make_optimizer(SETTINGS, 1, 6), 0.5)
    return keeper


def test_what_is_validated_and_kept_is_the_mean_of_the_weights(keeper):
    """That of Keras's optimizers, computed here for one weight: it begins with the first step's."""
    training, model, biases = keeper.training, keeper.training.network, []
    bias = model.get_layer("polyp").bias
    train.compile_unet(model, dice_loss, train.make_optimizer(SETTINGS, 2, 8), 0.5)

    def record(index, logs):
        biases.append(float(bias[0]))

    callbacks = [
        keras.callbacks.LambdaCallback(on_train_batch_end=record),
        keras.callbacks.LambdaCallback(keeper.begin_epoch, keeper.end_epoch),
        keras.callbacks.LambdaCallback(on_epoch_end=record),
    ]
    model.fit(keeper.training.pairs.dataset(), callbacks=callbacks, shuffle=False, verbose=0)
    first, second, afterwards = biases
    assert afterwards == second  # the training goes on with its own weights
    kept = load_unet(training.folder / "unet.keras")
    mean = 0.75 * first + 0.25 * second
    assert float(kept.get_layer("polyp").bias[0]) == pytest.approx(mean, abs=1e-6)
    assert abs(mean - second) > 1e-4
    images, masks = keeper.training.pairs.split.images[:], keeper.training.pairs.split.masks[:]
    loss = np.mean(dice_loss(masks, kept.predict(images, verbose=0)))
    assert training.rows[0]["val_loss"] == pytest.approx(loss, abs=1e-5)
    own = np.mean(dice_loss(masks, model.predict(images, verbose=0)))
    assert own == pytest.approx(loss, abs=1e-5)  # as fit leaves it


def test_batch_normalization_has_the_statistics_of_the_mean_weights():
    """By hand: the mean of the batches' means and variances of what the mean weights answer."""
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(2, 1)(inputs)
    normalised = keras.layers.BatchNormalization()
    network = keras.Model(
        inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(normalised(features))
    )
    pairs = Pairs(array_split(size=16), 8, 1, make_generator({}))
    network.compile(keras.optimizers.SGD(1e-3, use_ema=True, ema_momentum=0.5), dice_loss)
    for step in range(len(pairs)):
        network.train_on_batch(*pairs.batch(step))
    own = network.get_weights()
    with averaged_weights(network, pairs):
        kernel, bias = network.layers[1].get_weights()
        assert not np.array_equal(kernel, own[0])
        answers = [pairs.batch(step)[0] @ kernel[0, 0] + bias for step in range(len(pairs))]
        assert len(answers) == 2
        for statistic, of in (
            (normalised.moving_mean, np.mean),
            (normalised.moving_variance, np.var),
        ):
            expected = np.mean([of(answer, axis=(0, 1, 2)) for answer in answers], axis=0)
            np.testing.assert_allclose(statistic, expected, rtol=1e-3)
    assert normalised.momentum == 0.99
    for before, after in zip(own, network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("layer", ["polyp", "bottleneck_a"])
def test_weights_that_explode_end_the_training_and_leave_the_best_network(layer, keeper):
    """Also those that a ReLU hides: it makes 0 of what is no number, and the loss stays finite."""
    keeper.begin_epoch(0)
    keeper.end_epoch(0, dict(LOGS))
    keeper.begin_epoch(1)
    bias = keeper.training.network.get_layer(layer).bias
    bias.assign(bias * math.nan)
    with pytest.raises(SystemExit, match=r"of epoch 2 of phase 1 (is|are) not finite; try"):
        keeper.end_epoch(1, dict(LOGS))
    load_unet(keeper.training.folder / "unet.keras")  # whose weights are all finite
    assert [epoch for epoch, _ in backups(keeper.training.folder, 1)] == [1]


def test_an_epoch_of_data_that_were_prepared_anew_is_not_kept(keeper):
    def prepared_anew():
        raise InputError("data: was prepared anew while it was read")

    keeper.training = keeper.training._replace(check_data=prepared_anew)
    keeper.begin_epoch(0)
    with pytest.raises(InputError, match="prepared anew"):
        keeper.end_epoch(0, dict(LOGS))
    assert not any(path.is_file() for path in keeper.training.folder.rglob("*"))


def test_a_phase_that_is_over_is_not_begun_again(keeper):
    """Not even if its last backup is damaged: the next phase has its own."""
    keeper.training.rows.extend(make_rows([0.1] * 3) + make_rows([0.2], phase=2))
    train.train_phase(keeper.training, 1)
    assert not any(keeper.training.folder.iterdir())


@pytest.mark.parametrize(
    ("phase", "rows", "words"),
    [
        (1, make_rows([0.1] * 3), r"resume: lacks a whole backup; --fresh begins anew"),
        (2, make_rows([0.1] * 3), r"resume: lacks a whole backup; --fresh begins anew"),
        (1, [], r"history\.csv: lacks epochs; --fresh begins anew"),
    ],
)
def test_a_training_does_not_begin_anew_unasked(phase, rows, words, keeper):
    training, network = keeper.training, keeper.training.network
    training.rows.extend(rows)
    if not rows:
        save_backup(training.folder, 1, 2, network, network.optimizer)
    with pytest.raises(InputError, match=words):
        train.train_phase(training, phase)


@pytest.mark.parametrize("size", [2_000, 20_000])
def test_a_full_disk_ends_an_epoch_and_leaves_the_one_before(size, keeper):
    """The network, the history and the backup are written, in this order, and grow in it."""
    keeper.begin_epoch(0)
    keeper.end_epoch(0, dict(LOGS))
    folder = keeper.training.folder
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    keeper.training.rows[0]["val_dice_score"] = 0.0  # the next is better: its network is written
    keeper.begin_epoch(1)
    with full_disk(size), pytest.raises(InputError, match=r": cannot be written .*: make room"):
        keeper.end_epoch(1, dict(LOGS))
    after = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_folder_in_a_files_place_is_named_by_a_fresh_start(keeper, tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError, match=r"config\.json: cannot be read \(Is a directory\)"):
        earlier_training(tmp_path, {})
    with pytest.raises(
        InputError, match=r"config\.json: cannot be written .*move that folder away"
    ):
        begin(keeper.training, {}, fresh=True)


def test_a_training_of_unknown_settings_does_not_go_on(tmp_path):
    assert earlier_training(tmp_path, {}) is None
    for name in ("unet.keras", "history.csv"):  # the first may be all that somebody has kept
        (tmp_path / name).touch()
        words = rf"config\.json: is missing, and belongs to {name}; --fresh begins anew"
        with pytest.raises(InputError, match=words):
            earlier_training(tmp_path, {})


@pytest.mark.parametrize(("fraction", "kind"), [(0.0, "empty"), (1.0, "full")])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_masks_that_are_all_the_same_are_refused(split, fraction, kind):
    fractions = {"train": 0.1, "validation": 0.1, "test": 0.0}
    train.check_masks({"polyp_fraction": fractions}, "data")
    with pytest.raises(InputError, match=f"data: all masks of the split {split} are {kind}"):
        train.check_masks({"polyp_fraction": fractions | {split: fraction}}, "data")


def test_a_training_goes_on_in_the_precision_that_it_began_in(monkeypatch):
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
    monkeypatch.setattr(train, "choose_precision", lambda setting: "float32")
    before = {"machine": {"precision": "mixed_bfloat16"}}
    assert train.start_computing(before)[1] == "mixed_bfloat16"
    assert train.start_computing(None)[1] == "float32"


def test_a_network_that_calls_all_polyp_has_collapsed():
    with pytest.raises(SystemExit, match=r"no polyp .*, or nothing else, for 10 epochs"):
        check_health(make_rows([0.2] * 10, fraction=1.0), 45)
    check_health(make_rows([0.2] * 9, fraction=1.0) + make_rows([0.3], fraction=0.9), 45)


def test_a_collapsed_network_ends_the_training():
    with pytest.raises(SystemExit, match=r"no polyp predicted .* for 10 epochs.*--batch-size"):
        check_health(make_rows([0.0] * 10, fraction=0.0), 45)
    check_health(make_rows([0.0] * 9, fraction=0.0), 45)
    check_health(make_rows([0.1]) + make_rows([0.0] * 9, fraction=0.0)[1:], 45)


@pytest.mark.parametrize(("steps", "epochs"), [(1, 450), (2, 225), (45, 10), (3_125, 3)])
def test_a_collapse_is_one_of_many_steps_however_few_an_epoch_has(steps, epochs):
    check_health(make_rows([0.0] * (epochs - 1), fraction=0.0), steps)
    with pytest.raises(SystemExit, match=f"for {epochs} epochs: the network has collapsed"):
        check_health(make_rows([0.0] * epochs, fraction=0.0), steps)


def test_the_time_that_is_left_is_told_twice(keeper, capsys):
    keeper.estimate(99.0)  # the first epoch, with 5 to go
    keeper.estimate(60.0)
    keeper.estimate(60.0)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "about 8 minutes to go, or less: the first epoch also traced the step"
    assert second == "about 5 minutes to go"


def test_a_training_of_an_edited_model_does_not_go_on(keeper):
    before = {"network": describe_built(keeper.training)}
    check_built(before, keeper.training)
    edited = keeper.training._replace(plain=build_unet(size=16, filters=1, dropped=0.5))
    with pytest.raises(InputError, match=r"of another network, for model\.py was edited; --fresh"):
        check_built(before, edited)


def test_more_epochs_of_a_finished_training_are_shown_the_way(tmp_path):
    phases = [phase | {"epochs": 9} for phase in PHASES]
    config = {"settings": {"phases": PHASES}, "machine": {"precision": "float32"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert earlier_training(tmp_path, {"phases": PHASES}) == config
    with pytest.raises(InputError, match=f"epochs 3 \\+ 2, not 9 \\+ 9; .*--from {tmp_path} "):
        earlier_training(tmp_path, {"phases": phases})


@pytest.mark.parametrize("epochs", [["3"], ["1", "2", "3"]])
def test_epochs_are_one_number_for_each_phase(epochs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", *epochs])
    with pytest.raises(InputError, match=f"--epochs {' '.join(epochs)}: must be 2 numbers"):
        train.collect_settings(train.parse_arguments(), SUMMARY)
