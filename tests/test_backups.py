"""Backups of a training: which is taken, what damage costs, and what is never loaded."""

import io
import pickle

import keras
import numpy as np
import pytest

from model import build_unet
from utils.training import backups as room


@pytest.fixture(scope="module")
def network():
    network = build_unet(size=16, filters=1)
    network.compile("adam", "binary_crossentropy")
    network.optimizer.build(network.trainable_variables)
    return network


@pytest.fixture
def folder(network, tmp_path):
    """Return a folder with the backups of epochs 1 to 3, of which two are kept."""
    (tmp_path / room.RESUME).mkdir()
    for epoch in (1, 2, 3):
        mark(network, epoch)
        room.save_backup(tmp_path, 1, epoch, network, network.optimizer)
    mark(network, 0)
    return tmp_path


def mark(network, number):
    network.get_layer("polyp").bias.assign([number])
    network.optimizer.iterations.assign(10 * number)


def marks(network):
    return int(network.get_layer("polyp").bias[0]), int(network.optimizer.iterations)


def restore(network, folder, phase=1):
    return room.restore(folder, phase, network, network.optimizer)


def newest(folder):
    return folder / room.RESUME / "phase1-00003.npz"


def test_the_two_newest_of_a_phase_are_kept(folder):
    assert [epoch for epoch, _ in room.backups(folder, 1)] == [3, 2]
    assert room.backups(folder, 2) == []
    for name in ("phase1-00010", "phase1-00123"):
        (folder / room.RESUME / f"{name}.npz").touch()
    assert [epoch for epoch, _ in room.backups(folder, 1)] == [123, 10, 3, 2]


def test_weights_and_optimizer_come_back(network, folder, capsys):
    assert restore(network, folder, 2) == 0
    assert restore(network, folder) == 3
    assert marks(network) == (3, 30)
    assert capsys.readouterr().out == ""


def test_what_is_drawn_at_random_goes_on_where_it_was(tmp_path):
    (tmp_path / room.RESUME).mkdir()
    keras.utils.set_random_seed(0)
    network = build_unet(size=16, filters=4, dropped=0.5)
    network.compile("adam", "binary_crossentropy")
    picture = np.full((1, 16, 16, 3), 200.0)
    network(picture, training=True)
    room.save_backup(tmp_path, 1, 1, network, network.optimizer)
    drawn = [network(picture, training=True).numpy() for _ in range(4)]
    room.restore(tmp_path, 1, network)
    again = [network(picture, training=True).numpy() for _ in range(4)]
    np.testing.assert_array_equal(drawn, again)
    assert np.std(drawn, axis=0).max() > 0


def test_a_network_without_its_optimizer_takes_the_weights_alone(folder):
    other = build_unet(size=16, filters=1)
    assert room.restore(folder, 1, other) == 3
    assert int(other.get_layer("polyp").bias[0]) == 3


class Code:
    def __reduce__(self):
        return pytest.fail, ("what a backup holds was unpickled",)


def as_npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def other_arrays(whole, change):
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    change(arrays)
    return as_npz(**arrays)


def flip(whole, place):
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


DAMAGES = {
    "empty": lambda whole: b"",
    "cut off": lambda whole: whole[:3000],
    "cut off at the end": lambda whole: whole[:-1],
    "a bit of a weight": lambda whole: flip(whole, 1000),
    "text": lambda whole: b"text",
    "a pickle": lambda whole: pickle.dumps(Code()),
    "an array of objects": lambda whole: other_arrays(
        whole, lambda arrays: arrays.update(weights0=np.array([Code()], object))
    ),
    "another dtype": lambda whole: other_arrays(
        whole, lambda arrays: arrays.update(weights0=arrays["weights0"].astype(np.float64))
    ),
    "another shape": lambda whole: other_arrays(
        whole, lambda arrays: arrays.update(weights0=arrays["weights0"][..., :0])
    ),
    "no optimizer": lambda whole: other_arrays(whole, lambda arrays: arrays.pop("optimizer1")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_backup_costs_an_epoch(damage, network, folder, capsys):
    path = newest(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert restore(network, folder) == 2
    assert marks(network) == (2, 20)
    damaged, taken = capsys.readouterr().out.splitlines()
    assert damaged == f"{path}: is damaged; left out"
    assert taken == f"{path.with_name('phase1-00002.npz')}: taken instead"


def test_a_folder_in_a_backups_place_costs_an_epoch(network, folder, capsys):
    newest(folder).unlink()
    newest(folder).mkdir()
    assert restore(network, folder) == 2
    assert "Is a directory" in capsys.readouterr().out


def test_two_damaged_backups_change_nothing(network, folder, capsys):
    for _, path in room.backups(folder, 1):
        path.write_bytes(path.read_bytes()[:-1])
    assert restore(network, folder) == 0
    assert marks(network) == (0, 0)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_backups_go_all_at_once_and_what_a_kill_has_left_of_them_too(folder):
    (folder / ".part.resume").mkdir()
    (folder / ".part.resume/phase1-00009.npz").touch()
    room.drop_backups(folder)
    assert list(folder.iterdir()) == []
    room.drop_backups(folder)


def test_nothing_of_kerass_state_is_left_out(network):
    """What Keras would save itself is in a backup: weights and the optimizer's variables."""
    held = {id(variable) for variable in room.variables(network, network.optimizer).values()}
    assert {id(variable) for variable in network.variables} <= held
    assert {id(variable) for variable in network.optimizer.variables} <= held
