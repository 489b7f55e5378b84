"""The folder of results: one run's alone, and nothing removed that no run wrote."""

import errno
import json
import os
from pathlib import Path

import pytest

from shell import no_rights
from utils.command import InputError
from utils.results import LIST, Results


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


def run_with(folder, files, inputs=()):
    results = Results(folder, inputs)
    with results.begin(files):
        for name, text in files.items():
            with results.write(name) as beside:
                beside.write_text(text)


def held(folder):
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST
    )


def test_an_earlier_runs_results_go_with_a_line(folder, capsys):
    run_with(folder, {"masks/a.png": "1", "masks/b.png": "2", "overlays/a.png": "3"})
    assert capsys.readouterr().out == ""
    run_with(folder, {"metrics.json": "{}", "metrics.md": "#"})
    assert held(folder) == ["metrics.json", "metrics.md"]
    assert not (folder / "masks").exists()
    assert capsys.readouterr().out == f"{folder}: 3 of an earlier run's files are replaced\n"
    run_with(folder, {"metrics.json": "[]", "metrics.md": "##"})
    assert capsys.readouterr().out == f"{folder}: 2 of an earlier run's files are replaced\n"
    assert (folder / "metrics.md").read_text() == "##"


def test_what_no_run_wrote_stays_and_is_told_of(folder, capsys):
    run_with(folder, {"masks/a.png": "1", "masks/b.png": "2"})
    (folder / "masks/a.png").write_text("corrected by hand")
    (folder / "notes.txt").write_text("mine")
    run_with(folder, {"metrics.json": "{}"})
    assert held(folder) == ["masks/a.png", "metrics.json", "notes.txt"]
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"{folder}: 1 of an earlier run's files are replaced",
        f"Beware: {folder}/masks/a.png stays, but is none of this run's results",
    ]
    with pytest.raises(
        InputError, match=r"masks/a\.png: was changed since a run wrote it.*--results"
    ):
        run_with(folder, {"masks/a.png": "3"})
    assert (folder / "masks/a.png").read_text() == "corrected by hand"
    assert held(folder) == ["masks/a.png", "metrics.json", "notes.txt"]


def test_results_of_a_version_without_a_list_stay_and_are_not_written_over(folder):
    folder.mkdir()
    for name in ("per_image.csv", "metrics.json"):
        (folder / name).touch()
    run_with(folder, {"masks/a.png": "1"})
    assert held(folder) == ["masks/a.png", "metrics.json", "per_image.csv"]
    with pytest.raises(InputError, match=r"metrics\.json: was changed .* is none of the last run"):
        run_with(folder, {"metrics.json": "{}"})


def interrupted(folder, error):
    """Let a run end by an error after it has written a file, and half of another."""
    results = Results(folder)
    with results.begin(["masks/a.png", "masks/b.png"]):
        with results.write("masks/a.png") as beside:
            beside.write_text("1")
        with results.write("masks/b.png") as beside:
            beside.write_text("half of it")
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_until_all_is_written_the_earlier_results_stay(error, folder, capsys):
    run_with(folder, {"metrics.json": "{}", "masks/a.png": "0"})
    before = (folder / LIST).read_text()
    with pytest.raises((KeyboardInterrupt, InputError)) as raised:
        interrupted(folder, error)
    if isinstance(error, OSError):
        place = f"{folder}/masks/b.png: cannot be written"
        assert str(raised.value).startswith(place)  # not the place where it is made
    assert held(folder) == ["masks/a.png", "metrics.json"]
    assert (folder / "masks/a.png").read_text() == "0"
    assert (folder / LIST).read_text() == before
    assert sorted(path.name for path in folder.iterdir()) == ["masks", "metrics.json", LIST]
    assert capsys.readouterr().out == ""


def test_an_interrupted_run_leaves_no_new_folder(folder):
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder, KeyboardInterrupt())
    assert not folder.exists()


def test_what_a_kill_in_the_exchange_leaves_is_all_in_the_list(folder, monkeypatch):
    run_with(folder, {"masks/a.png": "0", "masks/c.png": "0"})

    def be_killed(source, target):
        if str(target).endswith("b.png"):
            raise KeyboardInterrupt
        os.rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("utils.results.shutil.move", be_killed)
        with pytest.raises(KeyboardInterrupt):
            run_with(folder, {"masks/a.png": "1", "masks/b.png": "2"})
    assert held(folder) == ["masks/a.png", "masks/c.png"]
    (folder / ".part").mkdir()
    (folder / ".part/half.png").touch()
    with open(folder / LIST, "a") as file:
        file.write('["abc", "cut o')
    run_with(folder, {"metrics.json": "{}"})
    assert held(folder) == ["metrics.json"]
    assert not (folder / "masks").exists()


def test_what_is_changed_while_a_run_is_at_work_stays(folder, capsys):
    run_with(folder, {"masks/a.png": "0", "masks/b.png": "0"})
    results = Results(folder)
    with results.begin(["masks/a.png", "masks/b.png"]):
        for name in ("masks/a.png", "masks/b.png"):
            with results.write(name) as beside:
                beside.write_text("1")
        (folder / "masks/a.png").write_text("corrected by hand")
    assert (folder / "masks/a.png").read_text() == "corrected by hand"
    assert (folder / "masks/b.png").read_text() == "1"
    assert f"Beware: {folder}/masks/a.png stays, but is none of" in capsys.readouterr().out


def test_a_folder_that_is_a_link_is_written_to(folder, tmp_path):
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "masks").symlink_to(tmp_path / "elsewhere")
    for text in ("0", "1"):
        run_with(folder, {"masks/a.png": text})
        assert (tmp_path / "elsewhere/a.png").read_text() == text
    run_with(folder, {"metrics.json": "{}"})
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_in_a_files_place_and_a_place_without_rights_are_named_before_any_work(
    folder, strangers_folder
):
    (folder / "metrics.json").mkdir(parents=True)
    with (
        pytest.raises(InputError, match=r"metrics\.json: cannot be .*move that folder away"),
        Results(folder).begin(["metrics.json"]),
    ):
        pytest.fail("the work has begun")
    with (
        no_rights(),
        pytest.raises(InputError, match=f"{strangers_folder}: cannot be written"),
        Results(strangers_folder).begin(["metrics.json"]),
    ):
        pytest.fail("the work has begun")


def test_a_second_run_beside_the_first_is_refused(folder):
    with Results(folder).begin([]), pytest.raises(InputError, match="another process is at work"):
        run_with(folder, {"metrics.json": "{}"})


def test_a_changed_result_is_told_of_before_any_work(folder):
    run_with(folder, {"metrics.json": "{}"})
    (folder / "metrics.json").write_text("mine")
    with pytest.raises(InputError, match="was changed"), Results(folder).begin(["metrics.json"]):
        pytest.fail("the work has begun")


@pytest.mark.parametrize("name", ["masks/a\0.png", "\ud800", "/etc/passwd", "../a.png"])
def test_a_damaged_list_names_nothing(name, folder):
    folder.mkdir()
    (folder / "written.jsonl").write_text(json.dumps(["0" * 64, name]) + "\n")
    assert Results(folder, [folder / "x"]).unchanged() == set()


def test_nothing_outside_the_folder_is_ever_removed(folder, tmp_path):
    run_with(folder, {"masks/a.png": "1"})
    digest = json.loads((folder / LIST).read_text())[0]
    outside = tmp_path / "a.png"
    outside.write_text("1")
    lines = [[digest, "../a.png"], [digest, str(outside)], [digest, "masks/../../a.png"], 7, ["x"]]
    (folder / LIST).write_text("\n".join(map(json.dumps, lines)))
    run_with(folder, {"metrics.json": "{}"})
    assert outside.read_text() == "1"
    assert (folder / "masks/a.png").exists()


@pytest.mark.parametrize("input_path", ["results/masks", "results/masks/a.png"])
def test_results_that_are_this_runs_input_are_not_removed(input_path, folder, monkeypatch):
    run_with(folder, {"masks/a.png": "1"})
    monkeypatch.chdir(folder.parent)
    with pytest.raises(InputError, match=r"masks/a\.png: is a result of an earlier .* --results$"):
        Results(folder, [input_path])
    assert held(folder) == ["masks/a.png"]
    Results(folder, ["other"])


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    Path(tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        run_with(tmp_path / "file/results", {"metrics.json": "{}"})
