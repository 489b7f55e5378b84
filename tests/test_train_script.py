"""train.py as a user runs it: what it refuses, and how it goes on."""

import json
import shutil
import subprocess
import sys

import pytest

from shell import ROOT, TINY, assert_mistake, read_rows, run_script, wait_for
from utils.files import lock_folder

TWO_DEVICES = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import train
from utils.devices import make_strategy
train.make_strategy = lambda: make_strategy(["CPU:0", "CPU:1"])
import model
train.OPTIMIZER, train.KERNELS, model.BLOCKS = "adam", "plain", 1  # less to trace, twice
"""
BEGIN_ALONE = """
import train
def begin_alone(training, machine, arguments):
    train.begin(training, machine, arguments.fresh)
    train.sys.exit()
train.train = begin_alone
"""


def edited(change, *arguments):
    """Return the command of a train.py that has been edited by a line of Python."""
    code = f"{change}\ntrain.run(train.main, 'interrupted')"
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(line):
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def copy_of(trained, folder):
    shutil.copytree(trained, folder)
    return folder


def test_refusals_and_help_do_not_wait_for_tensorflow(demo, trained, tmp_path):
    change = "import builtins, train; train.start_tensorflow = lambda: builtins.exit(99)"
    empty = run(edited(change, "--data", tmp_path))
    assert_mistake(empty, str(tmp_path), "run python data_preprocessing.py")
    help_text = run(edited(change, "-h"))
    assert help_text.returncode == 0
    options = ["--data", demo, "--checkpoints", trained]
    assert_mistake(run(edited(change, *TINY, *options, "--seed", 7)), "seed 42, not 7")
    heavy = "import sys, train; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert run([sys.executable, "-c", heavy]).returncode == 0


def test_a_constant_that_cannot_be_worked_with_is_named_at_once(demo, tmp_path):
    options = ["--data", demo, "--checkpoints", tmp_path]
    assert_mistake(run(edited("import train; train.WORKERS = 0", *options)), "WORKERS = 0")
    change = "import train; train.AUGMENTATION = {'rotation_range': (-20, 20)}"
    assert_mistake(run(edited(change, *options)), "AUGMENTATION", "rotation_range")
    assert list(tmp_path.iterdir()) == []  # nothing that would block the mended training


def test_a_threshold_that_was_edited_is_another_training(demo, trained):
    line = edited("import train; train.THRESHOLD = 0.7", *TINY, "--data", demo)
    assert_mistake(run([*line, "--checkpoints", str(trained)]), "threshold 0.5, not 0.7")


def test_a_finished_training_whose_network_is_gone_says_so(demo, trained, tmp_path):
    folder = copy_of(trained, tmp_path / "checkpoints")
    (folder / "unet.keras").unlink()
    done = run_script("train.py", *TINY, "--data", demo, "--checkpoints", folder)
    assert_mistake(done, "unet.keras is gone", "--fresh")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": 1}', '{"settings": {}}'])
def test_a_damaged_config_is_named(text, demo, tmp_path):
    (tmp_path / "config.json").write_text(text)
    done = run_script("train.py", *TINY, "--data", demo, "--checkpoints", tmp_path)
    assert_mistake(done, "config.json: is damaged" if text != '{"settings": {}}' else "config.json")


def test_checkpoints_that_cannot_be_written_are_named(demo, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file" / "checkpoints"
    done = run_script("train.py", *TINY, "--data", demo, "--checkpoints", folder)
    assert_mistake(done, str(folder), "cannot be written")


def test_arrays_that_turn_out_short_are_named(demo, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(demo, data)
    cut = f"import os, train; path = {str(data / 'images.npy')!r}\n"
    cut += "from utils.training import epochs\n"
    cut += "epochs.check_health = lambda rows, steps: os.truncate(path, 50_000)"
    done = run(edited(cut, *TINY, "--data", data, "--checkpoints", tmp_path / "checkpoints"))
    assert_mistake(done, "images.npy: is damaged; prepare the data set again")


def test_a_training_on_two_devices_goes_on_as_if_it_had_not_been_killed(demo, tmp_path):
    """In the second phase, whose mean of the weights goes on too."""
    options = ["--filters", 2, "--epochs", 1, 2, "--data", demo, "--batch-size", 17]
    whole, killed = (edited(TWO_DEVICES, *options, "--checkpoints", tmp_path / n) for n in "ab")
    done = run(whole)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        killed, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(process, (tmp_path / "b" / "resume" / "phase2-00001.npz").exists)
    process.kill()
    process.wait()
    done = run(killed)
    assert done.returncode == 0, done.stderr
    for name in ("dice_score", "loss", "val_loss"):
        a, b = ([row[name] for row in read_rows(tmp_path / n / "history.csv")] for n in "ab")
        assert a == b
    assert json.loads((tmp_path / "a/config.json").read_text())["machine"]["replicas"] == 2


def test_a_second_training_in_the_same_folder_is_refused(demo, tmp_path):
    options = [*TINY, "--data", demo, "--checkpoints", tmp_path]
    with lock_folder(tmp_path):
        assert_mistake(run_script("train.py", *options), str(tmp_path), "another process")
    assert list(tmp_path.iterdir()) == []


def test_a_training_begins_with_the_network_of_another(demo, trained, tmp_path):
    options, source = [*TINY, "--data", demo], tmp_path / "source"
    shutil.copytree(trained, source)
    config = json.loads((source / "config.json").read_text())
    own = {"data_source": "elsewhere", "data_sha256": "another"}
    config["settings"] |= own
    (source / "config.json").write_text(json.dumps(config))
    line = "train.py", "--filters", 8, "--epochs", 0, 1, "--data", demo, "--from", source
    line = *line, "--checkpoints", tmp_path / "next"
    done = run_script(*line)
    assert done.returncode == 0, done.stderr
    before, after = (read_rows(folder / "history.csv") for folder in (trained, tmp_path / "next"))
    assert abs(float(after[0]["val_loss"]) - float(before[-1]["val_loss"])) < 0.1
    settings = json.loads((tmp_path / "next/config.json").read_text())["settings"]
    assert settings["from"]
    assert settings["descent"] == [own]
    assert f"Beware: {tmp_path / 'next'} began with a network of other data or" in done.stdout
    assert (tmp_path / "next/augmented.png").is_file()
    (source / "config.json").unlink()  # what was known of the source decides nothing
    assert "this very training, finished" in run_script(*line).stdout
    same = run_script("train.py", *options, "--from", trained, "--checkpoints", trained)
    assert_mistake(same, "--from", "another folder")
    none = run_script("train.py", *options, "--from", tmp_path, "--checkpoints", trained)
    assert_mistake(none, "--from", "no unet.keras")
    other = ["--filters", 16, "--data", demo, "--from", trained, "--checkpoints", tmp_path / "wide"]
    assert_mistake(run_script("train.py", *other), str(trained), "filters 8, this one 16")
    assert not (tmp_path / "wide").exists()


def test_a_training_takes_width_and_kernels_of_a_network_in_the_repository(demo, tmp_path):
    source = ROOT / "checkpoints/hyperkvasir-16"
    change = BEGIN_ALONE + "train.FILTERS, train.KERNELS = 8, 'equivariant'"
    options = "--epochs", 0, 1, "--data", demo, "--from"
    done = run(edited(change, *options, source, "--checkpoints", tmp_path / "next"))
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "next/config.json").read_text())["settings"]
    assert settings["kernels"] == "standardized"
    assert settings["filters"] == 16
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(source / "unet.keras", bare)
    options = *options, bare, "--filters", 16, "--checkpoints", tmp_path / "none"
    done = run(edited(change, *options))
    assert_mistake(done, "bare/unet.keras", "other KERNELS; set them in train.py")


def test_the_original_is_the_original(demo, tmp_path):
    done = run_script(
        *("train.py", "--original", "--filters", 1, "--epochs", 0, 1, "--data", demo),
        *("--checkpoints", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "config.json").read_text())["settings"]
    assert settings["optimizer"] == "adam"
    assert settings["batch_size"] == 32
    assert settings["grey"]
    assert not settings["colours"]
    evaluated = run_script(
        *("evaluation.py", "--data", demo, "--checkpoints", tmp_path, "--results", tmp_path / "r")
    )
    assert evaluated.returncode == 0, evaluated.stderr


def test_what_memory_does_not_hold_is_a_line(demo, tmp_path):
    change = """
import train
def greedy(*_):
    import tensorflow as tf
    raise tf.errors.ResourceExhaustedError(None, None, "no room")
train.train = greedy
"""
    line = edited(change, "--batch-size", 8, "--data", demo, "--checkpoints", tmp_path)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert_mistake(done, "out of memory with batches of 8: take a smaller --batch-size")
