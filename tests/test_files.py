"""Being stopped, locking a folder, replacing its files at once, whole, and nothing else."""

import math
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shell import ROOT, assert_mistake, full_disk, no_rights
from utils.command import InputError, Progress, fail, one_line
from utils.files import (
    PART,
    check_places,
    lock_folder,
    read_file,
    read_whole,
    reading,
    replace_files,
    write_beside,
)

NAMES = ("a.npy", "b.csv", "mark.json")


def write(folder, text):
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / name).write_text(text)


def replace(folder, text="new"):
    with replace_files(folder, NAMES) as part:
        write(part, text)


def fail_to_replace(folder):
    with replace_files(folder, NAMES) as part:
        (part / "a.npy").write_text("half")
        raise KeyboardInterrupt


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """Return a folder that holds a set of files, and one more."""
    folder = tmp_path / "folder"
    write(folder, "old")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_other_files_stay(folder):
    replace(folder)
    assert texts(folder) == dict.fromkeys(NAMES, "new") | {"notes.txt": "mine"}
    assert not (folder / PART).exists()


def test_a_link_to_a_folder_stays_one(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert texts(folder)["a.npy"] == "new"


def test_the_current_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace(".")
    assert texts(tmp_path) == dict.fromkeys(NAMES, "new")


def test_a_block_that_fails_leaves_the_old_files_or_no_folder(folder, tmp_path):
    before = texts(folder)
    for place in (folder, tmp_path / "none", tmp_path / "link"):
        if place.name == "link":
            (tmp_path / "empty").mkdir()
            place.symlink_to(tmp_path / "empty")
        with pytest.raises(KeyboardInterrupt):
            fail_to_replace(place)
    assert texts(folder) == before
    assert not (folder / PART).exists()
    assert not (tmp_path / "none").exists()
    assert list((tmp_path / "link").iterdir()) == []


@pytest.mark.parametrize("moved", range(len(NAMES)))
def test_a_swap_that_breaks_off_lacks_its_mark_and_is_made_good(moved, folder, monkeypatch):
    replace_file, count = os.replace, iter(range(len(NAMES)))

    def replace_some(source, target):
        if next(count) == moved:
            raise KeyboardInterrupt
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_some)
        with pytest.raises(KeyboardInterrupt):
            replace(folder)
    assert not (folder / "mark.json").exists()
    with pytest.raises(KeyboardInterrupt):
        fail_to_replace(folder)  # the next try
    assert (folder / PART).is_dir()  # the sign that the set is unfinished
    replace(folder)
    assert texts(folder) == dict.fromkeys(NAMES, "new") | {"notes.txt": "mine"}
    assert not (folder / PART).exists()


def test_a_folder_of_other_files_is_refused(folder):
    (folder / "mark.json").unlink()
    before = texts(folder)
    with pytest.raises(InputError, match="folder: holds other files than a data set; choose"):
        replace(folder)
    assert texts(folder) == before


def test_a_file_or_a_dead_link_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for name in ("file", "link"):
        with pytest.raises(InputError, match=rf"{name}: cannot be written .*choose another place"):
            replace(tmp_path / name)


WAITING = """
import sys, time
from utils.command import run
def main():
    print("begun", flush=True)
    time.sleep(float(sys.argv[1]))
    print("done")
run(main, "stopped; go on")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_whoever_stops_a_script_reads_a_line(name, status):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, "60"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(getattr(signal, name))
    output, errors = process.communicate(timeout=30)
    assert (output, errors) == ("", "-c: stopped; go on\n")
    assert process.returncode == status


LOST = {
    "a callback of Python's own": "weakref.finalize(Stopped(), wait); print('lost', flush=True)",
    "a library that goes on": "try: wait()\n except BaseException: int(None)",
}


@pytest.mark.parametrize("code", LOST.values(), ids=LOST)
def test_a_stop_that_somebody_swallows_is_one_all_the_same(code):
    script = f"""
import time, weakref
from utils.command import run
class Stopped: pass
def wait():
    print("begun", flush=True)
    time.sleep(60)
def main():
 {code}
 time.sleep(60)
run(main, "stopped; go on")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (143, "-c: stopped; go on\n")


def test_a_script_under_nohup_outlives_its_terminal():
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", WAITING, "0.5"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=30)
    assert output == "done\n"
    assert process.returncode == 0


def test_a_folder_that_goes_again_is_locked_until_it_is_gone(tmp_path, monkeypatch):
    """Another process, that locks it in between, would be left with a folder that is no more."""
    gone, rmdir = [], Path.rmdir

    def removed(path):
        with pytest.raises(InputError, match="another process"):
            lock_folder(path).__enter__()
        gone.append(path)
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", removed)
    with lock_folder(tmp_path / "new"):
        pass
    assert gone == [tmp_path / "new"]
    assert not (tmp_path / "new").exists()


def test_a_locked_folder_is_refused_until_it_is_free(tmp_path):
    folder = tmp_path / "new" / "folder"
    with lock_folder(folder):
        with pytest.raises(InputError, match="folder: another process is at work there"):
            replace(folder)
        with lock_folder(tmp_path):  # another folder is nobody's business
            pass
    replace(folder)
    assert texts(folder) == dict.fromkeys(NAMES, "new")


def test_folders_that_a_lock_made_go_again_and_others_stay(tmp_path):
    (tmp_path / "mine/empty").mkdir(parents=True)
    for place in ("mine/empty", "mine/a/b/c", "mine/a/b"):
        with lock_folder(tmp_path / place):
            assert (tmp_path / place).is_dir()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["empty"]
    with lock_folder(tmp_path / "mine/a/b"):
        (tmp_path / "mine/a/notes.txt").touch()
    assert [path.name for path in (tmp_path / "mine/a").iterdir()] == ["notes.txt"]


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = "import sys, time; from utils.files import lock_folder\n"
    code += "with lock_folder(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process"):
        lock_folder(tmp_path).__enter__()
    process.kill()
    process.wait()
    with lock_folder(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_message_is_one_line_whatever_a_files_name_holds(capsys):
    names = {"a\nb": "a\\nb", "\x1b[2J": "\\x1b[2J", "\u2028": "\\u2028", "息肉 ä": "息肉 ä"}
    names[os.fsdecode(b"\xe4")] = "\\udce4"
    for name, shown in names.items():
        assert one_line(name) == shown
        assert fail(InputError(f"{name}: is empty"), status=2) == 2
        assert capsys.readouterr().err.endswith(f": {shown}: is empty\n")


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with (
        full_disk(1000),
        pytest.raises(
            InputError, match=r"file\.txt: cannot be written \(File too large\): make room"
        ),
        write_beside(path) as beside,
    ):
        beside.write_bytes(bytes(2000))
    assert texts(tmp_path) == {"file.txt": "old"}
    with full_disk(1000), pytest.raises(InputError, match=r"set: cannot be written .*: make room"):
        replace(tmp_path / "set", "x" * 2000)
    assert not (tmp_path / "set").exists()


def test_who_has_no_right_to_write_is_told_so(strangers_folder):
    words = r"\(Permission denied\): get the right to write there, or choose another place"
    with no_rights():
        with pytest.raises(InputError, match=words), write_beside(strangers_folder / "f") as beside:
            beside.write_text("new")
        for folder in (strangers_folder, strangers_folder / "new"):
            with pytest.raises(InputError, match=words):
                replace(folder)
    assert list(strangers_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("b.csv/masks/b.png", r"folder/b\.csv: is no folder; move that file away"),
        ("masks/" + "ä" * 126 + ".png", "png: too long a name; rename what it is made of"),
    ],
)
def test_a_place_that_cannot_be_is_named(name, words, folder):
    check_places(folder, ["new.csv", "masks/" + "ä" * 125 + ".png"])
    with pytest.raises(InputError, match=words):
        check_places(folder, ["new.csv", name])


def test_a_folder_in_a_files_place_is_named_before_anything_changes(folder):
    (folder / "b.csv").unlink()
    (folder / "b.csv").mkdir()
    before = texts(folder)
    words = r"b\.csv: cannot be written \(Is a directory\): move that folder away"
    with pytest.raises(InputError, match=words):
        replace(folder)
    with pytest.raises(InputError, match=words), write_beside(folder / "b.csv") as beside:
        beside.write_text("new")
    assert texts(folder) == before
    assert not (folder / PART).exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("\n"), "file: is damaged; try another"),
        (KeyError("x"), "file: is damaged; try another"),
        (OSError("HDF5 says so"), "file: is damaged; try another"),
        (FileNotFoundError(2, "gone"), "file: cannot be read (No such file or directory); try"),
        (PermissionError(13, "no"), "file: cannot be read (Permission denied); get the right to"),
        (PermissionError(1, "no"), "file: cannot be read (Operation not permitted); get the right"),
        (InputError("another line"), "another line"),
    ],
)
def test_whatever_a_reader_raises_is_one_line(error, words):
    with pytest.raises(InputError) as raised, reading("file", "try another"):
        raise error
    assert str(raised.value).startswith(words)
    assert "\n" not in str(raised.value)


def test_what_the_system_refuses_elsewhere_is_a_line_too(tmp_path):
    code = "from utils.command import run; run(lambda: open('none.txt'))"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert_mistake(done, "none.txt: No such file or directory; see to it and run again")


def test_a_signal_after_the_end_changes_nothing():
    code = "import os, signal; from utils.command import run; run(lambda: None)\n"
    code += (
        "for name in ('SIGINT', 'SIGTERM', 'SIGHUP'): signal.raise_signal(getattr(signal, name))"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run_in_shell(code, redirection, **environment):
    line = f"{shlex.join([sys.executable, '-c', code])} {redirection}"
    how = {"cwd": ROOT, "env": os.environ | environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, **how)


@pytest.mark.parametrize("readers", ["| head -1", "2>&1 | head -1"])
def test_a_script_whose_reader_has_gone_ends_in_a_line_at_most(readers):
    code = "from utils.command import run\n"
    code += "run(lambda: [print(number, flush=True) for number in range(100_000)])"
    done = run_in_shell(code, f"{readers}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout) == (141, "0\n")
    said = "" if "2>&1" in readers else "-c: stopped, for nobody reads its output any more\n"
    assert done.stderr == said


def test_a_reader_that_has_gone_is_no_full_disk(tmp_path):
    code = "from utils.files import replace_files; from utils.command import run\n"
    code += f"def main():\n with replace_files({str(tmp_path / 'data')!r}, ['mark']) as part:\n"
    code += "  [print(number, flush=True) for number in range(100_000)]\n"
    code += "run(main)"
    done = run_in_shell(code, "| head -1; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout) == (141, "0\n")
    assert "nobody reads its output" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("closed", "output", "errors"),
    [(">&-", "", "warned\n"), ("2>&-", "said\n", ""), ("<&- >&- 2>&-", "", "")],
)
def test_what_a_caller_has_closed_takes_no_file_and_stops_nothing(closed, output, errors, tmp_path):
    code = "import sys; from utils.command import Progress, hold_back_stderr, run\n"
    code += f"def main():\n with open({str(tmp_path / 'file')!r}, 'w') as file:\n"
    code += "  with hold_back_stderr(): print(Progress('x', 1).terminal, file=sys.stderr)\n"
    code += "  print('said'); print('warned', file=sys.stderr); file.write('whole')\n"
    code += "run(main)"
    done = run_in_shell(code, closed)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, errors)
    assert (tmp_path / "file").read_text() == "whole"


def test_a_name_that_the_terminal_cannot_show_is_escaped():
    code = "from utils.command import run\nrun(lambda: print('d\\udce4 息'))"
    for encoding, shown in (("utf-8", "d\\udce4 息"), ("ascii", "d\\udce4 \\u606f")):
        done = run_in_shell(code, "", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, shown, "")


def test_output_that_finds_no_room_at_the_end_is_told_of():
    code = "from utils.command import run\nrun(lambda: print('said'))"
    done = run_in_shell(code, ">/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "standard output: No space left on device" in line


def test_files_whose_names_differ_by_a_prefix_are_written_side_by_side(tmp_path):
    (tmp_path / "part.a.png").write_text("another")
    with write_beside(tmp_path / "a.png") as beside:
        beside.write_text("this")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "part.a.png": "another",
        "a.png": "this",
    }


def test_a_lock_on_a_folder_that_another_process_removed_is_none(tmp_path, monkeypatch):
    import fcntl

    def lose(lock, how):
        (tmp_path / "new").rmdir()
        (tmp_path / "new").mkdir()

    monkeypatch.setattr(fcntl, "flock", lose)
    with (
        pytest.raises(InputError, match="another process is at work"),
        lock_folder(tmp_path / "new"),
    ):
        pass


def test_progress_without_a_known_end_counts_and_ends_its_line(capsys, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    progress = Progress("frames", math.inf)
    progress.terminal, progress.shown = True, -1
    progress.advance(10)
    progress.end()
    progress.end()
    assert capsys.readouterr().out == "\rframes: 10, 0 s\n"


def test_progress_beyond_its_end_ends_its_line_once(capsys):
    progress = Progress("kB", 10)
    progress.terminal = True
    for _ in range(5):
        progress.advance(8)
    progress.end()
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="a terminal is a file here")
@pytest.mark.parametrize("count", [3, 10], ids=["midway", "at the end"])
def test_a_message_stands_on_a_line_of_its_own_in_a_terminal(count):
    import pty

    code = f"""
from utils.command import InputError, Progress, run
def main():
    progress = Progress("pairs", 10)
    progress.shown = -1
    progress.advance({count})
    raise InputError("a.png: is bad")
run(main)
"""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=theirs, stderr=theirs, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 2
    assert shown == f"\rpairs: {count} of 10, 0 s\r\n-c: a.png: is bad\r\n"


def test_scripts_are_run_without_a_network():
    """So the data step, training and evaluation that tests run all turn to none."""
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 99
    assert "no script but the download" in done.stderr


def test_no_more_is_read_of_a_file_than_it_may_hold(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(bytes(1000))
    assert read_file(path, most=1000) == bytes(1000)
    words = r"list\.txt: cannot be read \(File too large\); name another file"
    with pytest.raises(InputError, match=words):
        read_file(path, most=999)
    with pytest.raises(InputError, match=r"zero: cannot be read \(File too large\); remove it"):
        read_file("/dev/zero", "remove it", 3_000_000)
    with (
        pytest.raises(InputError, match=r"zero: cannot be read \(File too large\); mend it"),
        reading("/dev/zero", "mend it"),
    ):
        read_whole("/dev/zero", 3_000_000)
