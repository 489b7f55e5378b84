"""Pictures and films of one's own: what is found, what is left in the results, what is refused."""

import csv
import io
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import evaluation
from shell import full_disk, segment_picture
from utils.command import InputError
from utils.data.demo import draw_demo_pair
from utils.data.pictures import reduce_pair
from utils.prediction.films import (
    Event,
    FilmError,
    Watch,
    is_film,
    make_timing,
    segment_film,
)
from utils.prediction.networks import Networks
from utils.prediction.own_pictures import (
    PICTURE_PIXELS,
    Row,
    Segmenter,
    find_files,
    find_polyps,
    in_batches,
    in_order,
    predict_stream,
    read_list,
    segment_pictures,
)
from utils.results import Results

SIZE = 32


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def brightness(pictures):
    """Predict that what is bright is polyp."""
    return pictures.mean(axis=-1, keepdims=True, dtype=np.float32) / 255


def save(path, *boxes, shape=(60, 80)):
    """Save a dark picture with white boxes: left, top, width, height."""
    picture = np.zeros((*shape, 3), np.uint8)
    for left, top, width, height in boxes:
        picture[top : top + height, left : left + width] = 255
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture)[1])
    return picture


def segment(files, batch_size=3, probabilities=False, predict=brightness, level=0):
    results = Results("results")
    with results.begin([]):
        segmenter = Segmenter(predict, SIZE, 0.5, level, batch_size)
        return segment_pictures(files, segmenter, results, probabilities)


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


# The files


def test_folders_in_folders_keep_their_structure():
    for path in ("in/b/x.png", "in/a/x.JPG", "in/a/deep/y.png", "in/z.bmp", "in/.hidden/h.png"):
        save(path)
    save("elsewhere/l.png")
    os.symlink("../elsewhere", "in/link")
    Path("in/notes.txt").touch()
    found = find_files(["in"], "results")
    assert list(found) == ["z", "a/x", "a/deep/y", "b/x"]
    assert found["a/x"] == Path("in/a/x.JPG")


def test_names_are_paths_below_what_holds_all_that_is_named():
    for path in ("a/x.png", "b/x.png", "b/deep/x.png"):
        save(path)
    assert list(find_files(["b/x.png"], "results")) == ["x"]
    assert list(find_files(["a", "b/x.png"], "results")) == ["a/x", "b/x"]
    assert list(find_files(["b", "b/x.png", "b/deep"], "results")) == ["x", "deep/x"]  # each once


def test_the_results_are_not_looked_into():
    save("x.png")
    segment(find_files(["."], "results"))
    assert list(find_files(["."], "results")) == ["x"]


def test_files_that_differ_in_their_suffix_alone_keep_it():
    for name in ("a.png", "a.jpg", "b.png"):
        save(name)
    assert list(find_files(["."], "results")) == ["a.jpg", "a.png", "b"]
    save("a.jpg.bmp")
    with pytest.raises(InputError, match=r"a\.jpg.* are one; rename either$"):
        find_files(["."], "results")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.org/a.jpg", r"^https://example\.org/a\.jpg: is an address; download it"),
        ("none.png", r"^none\.png: there is no such file"),
        ("empty", r"^empty: holds no picture and no film"),
    ],
)
def test_what_is_no_picture_of_ones_own_is_a_line(path, words):
    Path("empty").mkdir()
    with pytest.raises(InputError, match=words):
        find_files([path], "results")


def test_a_list_names_a_picture_in_each_line(monkeypatch):
    for name in ("a b.png", "息.png", "c.png"):
        Path(name).touch()
    Path("list.txt").write_bytes(b"\xef\xbb\xbfa b.png\r\n\r\n\xe6\x81\xaf.png\n")
    assert read_list("list.txt") == (["a b.png", "息.png"], [])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c.png\n")))
    assert read_list("-") == (["c.png"], [])
    Path("list.txt").write_text("\n")
    with pytest.raises(InputError, match=r"^list\.txt: names no picture"):
        read_list("list.txt")


# The stream


def test_reading_ahead_is_bounded_and_in_order():
    begun, taken, small = [], 0, np.zeros((2, 2, 3), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        for _, number in in_order(pool, lambda n: begun.append(n) or (small, n), range(50), 6):
            assert number == taken
            taken += 1
            assert len(begun) <= taken + 6


def test_of_large_pictures_few_are_read_ahead():
    begun, taken = [], 0
    large = np.broadcast_to(np.uint8(0), (PICTURE_PIXELS // 1000, 1000, 3))
    with ThreadPoolExecutor(4) as pool:
        for _ in in_order(pool, lambda n: begun.append(n) or (large, n), range(20), 6):
            taken += 1
            assert len(begun) <= taken + 2
    assert taken == 20
    begun, taken = [], 0
    with ThreadPoolExecutor(4) as pool:  # nor after one that could not be read

        def read(number):
            begun.append(number)
            return (large,) if number else None

        for _ in in_order(pool, read, range(20), 6):
            taken += 1
            assert len(begun) <= taken + 2


def test_a_batch_is_bounded_by_its_pictures_and_by_its_pixels():
    small, large = np.zeros((2, 2, 3), np.uint8), np.zeros((PICTURE_PIXELS // 64, 32, 3), np.uint8)
    batches = in_batches(([small]) * 5 + [[large]] * 3, 4)
    assert [len(batch) for batch in batches] == [4, 3, 1]


def test_no_more_than_two_batches_are_in_memory_behind_the_reader():
    held, most, lock = 0, 0, threading.Lock()

    def pictures():
        nonlocal held, most
        for number in range(40):
            with lock:
                held, most = held + 1, max(most, held + 1)
            yield np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), number

    def finish(number, picture, probability):
        nonlocal held
        with lock:
            held -= 1
        return number

    with ThreadPoolExecutor(2) as pool:
        done = list(predict_stream(pool, pictures(), brightness, finish, 4))
    assert done == list(range(40))
    assert most <= 12


# What is left


def test_pictures_of_several_sizes_are_segmented_as_one_by_one():
    files, shapes = {}, [(60, 80), (37, 41), (128, 90), (10, 300), (1, 1)]
    for number, shape in enumerate(shapes):
        files[f"n{number}"] = Path(f"in/n{number}.png")
        save(files[f"n{number}"], (5, 5, 20, 20), shape=shape)
    done, alarming, failures = segment(files, probabilities=True)
    assert (done, alarming, failures) == (len(files), 4, [])
    for name, file in files.items():
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        mask = cv2.imread(f"results/masks/{name}.png", cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, segment_picture(brightness, picture, SIZE, 0.5))
        levels = cv2.imread(f"results/probabilities/{name}.png", cv2.IMREAD_UNCHANGED)
        assert levels.shape == picture.shape[:2]
        sure = np.abs(levels.astype(int) - 127) > 1
        np.testing.assert_array_equal((levels > 127)[sure], (mask > 0)[sure])
        overlay = cv2.imread(f"results/overlays/{name}.jpg", cv2.IMREAD_COLOR_RGB)
        assert overlay.shape == picture.shape
    overlay = cv2.imread("results/overlays/n0.jpg", cv2.IMREAD_COLOR_RGB)
    assert (np.abs(overlay.astype(int) - (240, 228, 66)).max(axis=-1) < 40).sum() > 40  # yellow


def test_the_table_has_a_row_for_each_polyp():
    save("two.png", (0, 0, 20, 15), (50, 30, 30, 30))
    save("none.png")
    segment(find_files(["two.png", "none.png"], "results"), predict=lambda x: brightness(x) * 0.8)
    first, second, empty = read_table("results/pictures.csv")
    assert list(first) == ["name", *Row._fields]
    assert [first["name"], first["polyps"], first["polyp"]] == ["two", "2", "1"]
    assert [second["name"], second["polyps"], second["polyp"]] == ["two", "2", "2"]
    assert float(second["pixels"]) == pytest.approx(900, rel=0.15)
    assert float(second["percent"]) == pytest.approx(100 * float(second["pixels"]) / 4800, abs=1e-3)
    assert 0.6 < float(second["probability"]) <= 0.8
    box = [int(second[f"box_{key}"]) for key in ("left", "top", "width", "height")]
    np.testing.assert_allclose(box, [50, 30, 30, 30], atol=2)
    assert list(empty.values()) == ["none", "0", "0", "0.0", *[""] * 9]


def test_a_polyps_numbers_are_those_by_hand():
    probability = np.full((20, 30, 1), 0.25, np.float32)
    probability[2:6, 3:8] = 0.5  # 20 of 600 pixels
    probability[2:6, 3:5] = 0.75
    row = [1, 1, 0.75, 1, 1, 20, 3.333, 0.6, 3, 2, 5, 4]
    found = find_polyps(probability, (20, 30), 0.4, 0.7)
    assert found.rows == [Row(*row)]
    np.testing.assert_array_equal(found.mask, probability[..., 0] >= 0.4)
    found = find_polyps(probability, (20, 30), 0.4, 0.8)
    assert found.rows == [Row(1, 0, 0.75, 1, 0, *row[5:])]
    assert found.mask.sum() == 20
    assert not found.sure.any()
    assert find_polyps(probability, (20, 30), 0.8, 0).rows == [(0, 0, 0.75, *[""] * 9)]
    large = np.zeros((100, 100, 1), np.float32)
    large[10:20, 10:20], large[50, 50:53] = 0.9, 0.9  # the second is too small to count
    found = find_polyps(large, (100, 100), 0.5, 0)
    assert (found.rows[0].alarms, found.mask.sum(), found.sure.sum()) == (1, 103, 100)
    large[10:20, 10:20] = 0
    assert not find_polyps(large, (100, 100), 0.5, 0).sure.any()


def test_what_is_less_sure_than_the_level_is_no_alarm_and_stays_in_the_mask():
    save("both.png", (0, 0, 20, 15), (50, 30, 30, 30))

    def predict(pictures):  # sure on the right half
        return brightness(pictures) * np.where(np.arange(SIZE) < SIZE // 2, 0.6, 0.9)[:, None]

    done, alarming, _ = segment({"both": Path("both.png")}, predict=predict, level=0.7)
    assert (done, alarming) == (1, 1)
    first, second = read_table("results/pictures.csv")
    assert [first["alarm"], second["alarm"], first["alarms"]] == ["0", "1", "1"]
    mask = cv2.imread("results/masks/both.png", cv2.IMREAD_GRAYSCALE)
    assert mask[5, 5] == mask[45, 65] == 255
    overlay = cv2.imread("results/overlays/both.jpg", cv2.IMREAD_COLOR_RGB).astype(int)
    yellow = np.abs(overlay - (240, 228, 66)).max(axis=-1) < 40
    grey = np.abs(overlay - 187).max(axis=-1) < 30
    assert yellow[:, 40:].sum() > 40 > 0 == yellow[:, :30].sum()
    assert grey[:20, :25].sum() > 10
    assert segment({"both": Path("both.png")}, predict=predict, level=0.95)[:2] == (1, 0)


def use_brightness(monkeypatch):
    """Let evaluation.py take the brightness of a pixel for its probability of polyp."""
    networks = Networks(["a"], [], [], 0.5)
    monkeypatch.setattr(evaluation, "choose_networks", lambda *_, **__: networks)
    monkeypatch.setattr(evaluation, "start_tensorflow", lambda: None)
    loaded = evaluation.Prediction(networks, [brightness], SIZE, "float32")
    monkeypatch.setattr(evaluation, "load_prediction", lambda *_: loaded)


def test_a_run_without_a_picture_that_can_be_read_leaves_the_earlier_results(monkeypatch, capsys):
    """One of the two is too long for a JPEG of its outlines."""
    save("in/a.png", (5, 5, 20, 20))
    use_brightness(monkeypatch)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "in/a.png"])
    evaluation.main()
    before = tree("results")
    Path("broken.png").write_bytes(b"no picture")
    cv2.imwrite("long.png", np.zeros((2, 70_000), np.uint8))
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["evaluation.py", "broken.png", "long.png"])
    with pytest.raises(SystemExit):
        evaluation.main()
    out, err = capsys.readouterr()
    assert "masks" not in out
    assert "long.png: a side of more than 65,500 pixels; cut it" in err
    assert "2 of 2 could not be read whole" in err
    assert tree("results") == before


def test_what_a_list_names_and_is_not_there_is_named_and_the_others_are_done(monkeypatch, capsys):
    save("in/a.png", (5, 5, 20, 20))
    Path("list.txt").write_text("in/a.png\n\nin/gone.png\nhttps://x/y.png\n")
    use_brightness(monkeypatch)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "--list", "list.txt"])
    with pytest.raises(SystemExit) as end:
        evaluation.main()
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "evaluation.py: in/gone.png: there is no such file",
        "evaluation.py: https://x/y.png: is an address; download it, and name the file",
        "evaluation.py: 2 of 3 could not be read whole",
    ]
    assert tree("results/masks") == ["a.png"]
    Path("list.txt").write_text("in/gone.png\nin/lost.png\n")
    with pytest.raises(
        InputError, match=r"list\.txt: names nothing that is there, such as in/gone\.png;"
    ):
        evaluation.main()


def test_files_that_are_no_pictures_are_told_of(capsys):
    save("in/a.png")
    for name in ("notes.txt", "b.dcm", "c.ppx", ".hidden"):
        Path("in", name).touch()
    assert list(find_files(["in", "in", "in/c.ppx"], "results")) == ["a", "c"]
    out = capsys.readouterr().out
    assert out == "in/b.dcm: left out, no picture or film by its suffix (2 such files in all)\n"


def test_a_broken_picture_is_named_and_the_others_are_done(monkeypatch, capsys):
    for name in "abcd":
        save(f"in/{name}.png", (5, 5, 20, 20))
    Path("in/b.png").write_bytes(b"no picture")
    Path("in/deep").mkdir()
    data = cv2.imencode(".jpg", cv2.imread("in/c.png"))[1].tobytes()
    Path("in/deep/d.jpg").write_bytes(data[:-2] + bytes(20) + data[-2:])  # flipped bits leave such
    Path("in/deep/e.jpg").touch()
    monkeypatch.setattr("sys.argv", ["evaluation.py", "in"])
    use_brightness(monkeypatch)
    with pytest.raises(SystemExit) as end:
        evaluation.main()
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "evaluation.py: in/b.png: not a picture that OpenCV can decode; replace or remove it",
        "evaluation.py: in/deep/d.jpg: a damaged JPEG; its mask is that of the part that is there;"
        " replace it",
        "evaluation.py: in/deep/e.jpg: is empty (zero bytes); replace or remove it",
        "evaluation.py: 3 of 6 could not be read whole",
    ]
    assert "4 masks, an alarm in 4;" in printed.out
    assert tree("results/masks") == ["a.png", "c.png", "d.png", "deep/d.png"]
    names = [row["name"] for row in read_table("results/pictures.csv")]
    assert names == ["a", "c", "d", "deep/d"]


def test_results_of_folders_in_folders_go_with_the_next_run():
    save("in/a/deep/x.png")
    segment(find_files(["in"], "results"))
    save("in/y.png")
    segment(find_files(["in"], "results"))
    assert tree("results/masks") == ["a/deep/x.png", "y.png"]
    segment(find_files(["in/y.png"], "results"))
    assert tree("results/masks") == ["y.png"]
    assert not Path("results/masks/a").exists()


# Films


def write_film(path, count=11, size=(320, 240), rate=12.5):
    """Write a film of a drawn polyp that goes away; return its masks, at the network's size."""
    film = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
    picture, mask = draw_demo_pair("demo_3")
    masks = []
    for number in range(count):
        shown = number < 6
        frame = picture // 4 + mask[..., None] // 2 * np.uint8(shown)
        film.write(cv2.resize(frame[..., ::-1], size))
        masks.append(reduce_pair(frame, mask * np.uint8(shown), SIZE)[1])
    film.release()
    return masks


def frames_of(path):
    film = cv2.VideoCapture(path)
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1])
    return frames, film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)


def segment_one_film(file, batch_size=4, begins=1, ends=1):
    results, failure = Results("results"), None
    segmenter = Segmenter(brightness, SIZE, 0.4, 0, batch_size)
    with results.begin([]):
        try:
            return segment_film(Path(file), "film", segmenter, Watch(begins, ends), results)
        except FilmError as error:  # as evaluation.py does, which goes on
            failure = error
    raise failure


def test_a_film_keeps_its_length_size_and_rate(capfd):
    masks = write_film("film.mp4")
    assert segment_one_film("film.mp4") == (11, pytest.approx(0.88), [(0, pytest.approx(0.48))])
    before, (after, rate, count) = frames_of("film.mp4")[0], frames_of("results/films/film.mp4")
    assert rate == 12.5
    assert count == len(after) == len(before) == 11
    assert {frame.shape for frame in after} == {(240, 320, 3)}
    changed = [np.abs(a.astype(int) - b).max() for a, b in zip(after, before, strict=True)]
    assert min(changed[:6]) > 100 > 60 > max(changed[6:])  # outlined, and compressed alone
    rows = read_table("results/films/film.csv")
    assert [int(row["frame"]) for row in rows] == list(range(11))
    assert [row["polyps"] for row in rows] == ["1"] * 6 + ["0"] * 5
    assert rows[5]["seconds"] == "0.4"
    assert float(rows[0]["percent"]) == pytest.approx(100 * masks[0].mean(), rel=0.15)
    assert capfd.readouterr().err == ""


def test_an_alarm_begins_and_ends_after_so_many_frames():
    def stands(alarms, begins, ends):
        watch = Watch(begins, ends)
        return "".join(str(watch.advance(alarm == "x")) for alarm in alarms)

    assert stands("x.xx.xxx....x", 1, 1) == "1022033300004"
    assert stands("x.xx.xxx..x...xxx", 3, 2) == "00000001100000002"
    assert stands("x" * 6 + "." + "x" * 7, 7, 7) == "0" * 13 + "1"


def test_the_events_of_a_film_stand_in_its_frames_and_its_table():
    write_film("film.mp4", count=14)  # of the first six frames
    frames, seconds, events = segment_one_film("film.mp4", begins=3, ends=4)
    assert (frames, seconds) == (14, pytest.approx(14 / 12.5))
    assert events == [Event(pytest.approx(2 / 12.5), pytest.approx(9 / 12.5))]
    rows = read_table("results/films/film.csv")
    assert [row["event"] for row in rows] == [""] * 2 + ["1"] * 7 + [""] * 5
    film = frames_of("results/films/film.mp4")[0]
    edge = [np.abs(frame[2, 2:-2].astype(int) - (66, 228, 240)).mean() < 30 for frame in film]
    assert edge == [row["event"] == "1" for row in rows]


def test_a_broken_film_is_a_line_and_leaves_nothing(capfd):
    write_film("film.mp4")
    whole = Path("film.mp4").read_bytes()
    for data in (b"", b"no film", whole[: len(whole) // 2]):
        Path("broken.mp4").write_bytes(data)
        with pytest.raises(InputError, match=r"^broken\.mp4: not a film that OpenCV can play"):
            segment_one_film("broken.mp4")
        assert tree("results") == []
    assert capfd.readouterr().err == ""


def test_a_films_name_is_no_address_and_one_that_is_no_text_is_refused():
    write_film("film.mp4")
    os.rename("film.mp4", "2026-11-25T10:30:00.mp4")
    assert segment_one_film("2026-11-25T10:30:00.mp4")[0] == 11
    odd = os.fsdecode(b"f\xe4.mp4")
    os.rename("2026-11-25T10:30:00.mp4", odd)
    with pytest.raises(FilmError, match=r"paths in UTF-8 alone; rename it, or"):
        segment_one_film(odd)


def test_a_film_for_which_there_is_no_room_is_no_bad_film():
    write_film("film.mp4")
    with full_disk(100), pytest.raises(InputError, match=r"film\.\w+: cannot be written") as error:
        segment_one_film("film.mp4")
    assert not isinstance(error.value, FilmError)


def test_probabilities_of_films_are_refused_before_any_work(monkeypatch):
    write_film("a.mp4")
    monkeypatch.setattr("sys.argv", ["evaluation.py", "a.mp4", "--probabilities"])
    with pytest.raises(InputError, match=r"^--probabilities: .* segment films without it$"):
        evaluation.main()
    assert not Path("results").exists()


def test_films_are_outlined_by_the_script_and_a_broken_one_does_not_stop_the_others(
    monkeypatch, capsys
):
    masks = write_film("a.mp4")
    Path("b.mp4").write_bytes(b"no film")
    save("c.png", (5, 5, 20, 20))
    use_brightness(monkeypatch)
    monkeypatch.setattr("sys.argv", ["evaluation.py", "b.mp4", "a.mp4", "c.png"])
    with pytest.raises(SystemExit) as end:
        evaluation.main()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    frames = Path("results/films/a.mp4")
    assert f"{frames}: 11 frames, segmented at " in out
    assert "no alarm; each" in out  # of six frames
    assert len(masks) == 11
    assert "b.mp4: not a film that OpenCV can play" in err
    assert "1 of 3 could not be read whole" in err
    assert tree("results") == [
        *("films/a.csv", "films/a.mp4", "masks/c.png", "overlays/c.jpg", "pictures.csv"),
        "written.jsonl",
    ]


def test_a_film_that_mpeg_4_does_not_take_is_named():
    film = cv2.VideoWriter("wide.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (8192, 16))
    film.write(np.zeros((16, 8192, 3), np.uint8))
    film.release()
    with pytest.raises(FilmError, match=r"^wide\.avi: MPEG-4 takes no film of 8,192 x 16 pixels"):
        segment_one_film("wide.avi")
    assert tree("results") == []


def test_a_film_that_ends_too_early_is_told_and_kept():
    film = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(40):
        film.write(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    film.release()
    data = Path("film.avi").read_bytes()
    Path("film.avi").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"^film\.avi: only \d+ of its 40 frames could be read"):
        segment_one_film("film.avi")
    assert 10 < len(frames_of("results/films/film.mp4")[0]) < 40


def write_matroska(path, milliseconds, damaged=(), size=(64, 48)):
    """Write a film of dark JPEGs, see `last_digits`, at the times of a list of int.

    damaged: the numbers of frames that are no JPEG. OpenCV itself writes constant rates alone.
    """

    def element(kind, *content):
        data = b"".join(content)
        return bytes.fromhex(kind) + (len(data) | 1 << 56).to_bytes(8, "big") + data

    def number(kind, value):
        return element(kind, value.to_bytes(4, "big"))

    def frame(index, time):
        picture = np.full((size[1], size[0], 3), 20 + 8 * (index % 10), np.uint8)
        data = cv2.imencode(".jpg", picture)[1].tobytes()
        data = bytes(len(data)) if index in damaged else data
        return element("a3", b"\x81", time.to_bytes(2, "big"), b"\x80", data)

    head = element("1a45dfa3", element("4282", b"matroska"))
    info = element("1549a966", number("2ad7b1", 1_000_000))
    pixels = element("e0", number("b0", size[0]), number("ba", size[1]))
    track = number("d7", 1), number("73c5", 1), number("83", 1), element("86", b"V_MJPEG"), pixels
    frames = [frame(index, time) for index, time in enumerate(milliseconds)]
    cluster = element("1f43b675", number("e7", 0), *frames)
    tracks = element("1654ae6b", element("ae", *track))
    Path(path).write_bytes(head + element("18538067", info, tracks, cluster))


def last_digits(path):
    """Return the last digit of the number of each frame of a film of `write_matroska`'s frames."""
    return [round((frame.mean() - 20) / 8) for frame in frames_of(path)[0]]


def test_a_varying_rate_keeps_each_frames_time(capsys):
    times = [0, 40, 60, 80, 200, 240, 360, 400]  # steps of 40, 20, 20, 120, 40, 120 and 40 ms
    write_matroska("film.mkv", times)
    assert segment_one_film("film.mkv") == (8, pytest.approx(0.44), [])
    rows = read_table("results/films/film.csv")
    assert [int(row["frame"]) for row in rows] == list(range(8))
    assert [float(row["seconds"]) for row in rows] == [time / 1000 for time in times]
    # At 25 a second: the frame of 60 ms is seen at 80 ms, that of 80 ms at 120 ms
    assert last_digits("results/films/film.mp4") == [0, 1, 2, 3, 3, 4, 5, 5, 5, 6, 7]
    assert frames_of("results/films/film.mp4")[1] == 25
    line = "film.mkv: its rate varies; the outlined film has 25 frames a second, and repeats 3 so"
    assert line in capsys.readouterr().out


def test_damaged_frames_are_counted_and_the_others_keep_their_places():
    write_matroska("film.mkv", range(0, 2000, 40), damaged=[7, 20])
    with pytest.raises(FilmError, match=r"^film\.mkv: only 48 of its 50 frames could be read"):
        segment_one_film("film.mkv")
    rows = read_table("results/films/film.csv")
    assert [int(row["frame"]) for row in rows] == sorted({*range(50)} - {7, 20})
    assert all(float(row["seconds"]) == int(row["frame"]) / 25 for row in rows)
    expected = [{7: 6, 20: 19}.get(number, number) for number in range(50)]
    assert last_digits("results/films/film.mp4") == [number % 10 for number in expected]


def test_a_constant_rate_rounded_to_milliseconds_is_one():
    seconds = np.round(np.arange(100) / 30, 3)
    gap = np.delete(seconds, [50, 51]), np.zeros(98, int)
    timing = make_timing(*gap, 1000, 0, False)
    assert timing.rate == 30
    assert not timing.varies
    assert timing.numbers.tolist() == [*range(50), *range(52, 100)]
    assert timing.repeats.tolist() == [1] * 49 + [3] + [1] * 48
    assert timing.total == 100
    timing = make_timing(*gap, 1000, 98, True)  # as a telephone films that lacks the time
    assert (timing.total, timing.rate, timing.varies) == (98, 30, True)
    assert timing.numbers.tolist() == [*range(98)]
    assert timing.repeats.tolist() == [1] * 49 + [3] + [1] * 48


def test_times_that_fall_back_or_jump_are_not_gone_by():
    for seconds in ([0.08, 0.12, 0.16, 0, 0], [0, 0.04, 0.08, 95443.7, 95443.74]):
        timing = make_timing(np.array(seconds), np.array([0, 0, 1, 0, 0]), 25, 6, True)
        assert timing.numbers.tolist() == [0, 1, 3, 4, 5]
        assert timing.repeats.tolist() == [1, 2, 1, 1, 1]
        assert timing.seconds.tolist() == [0, 0.04, 0.12, 0.16, 0.2]
        assert timing.total == 6


def test_a_film_may_end_before_an_estimate_but_not_before_a_count():
    seconds, none_lost = np.arange(100) / 25, np.zeros(100, int)
    for announced, counted, total in ((110, False, 100), (120, False, 120), (101, True, 101)):
        assert make_timing(seconds, none_lost, 25, announced, counted).total == total


def test_what_has_no_known_suffix_is_looked_into():
    write_matroska("film", range(0, 400, 40))
    write_matroska("one", [0])
    save("picture.png")
    os.rename("picture.png", "picture")
    Path("text.txt").write_text("no picture\n" * 1000)
    Path("empty").touch()
    names = ("film", "one", "picture", "text.txt", "empty", "gone.ASF", "gone.PNG", "f\udce4")
    found = [is_film(Path(name)) for name in names]
    assert found == [True, False, False, False, False, True, False, False]


def test_an_odd_size_loses_its_last_row_and_column_alone():
    write_matroska("film.mkv", range(0, 240, 40), size=(41, 31))
    assert segment_one_film("film.mkv")[0] == 6
    frames = frames_of("results/films/film.mp4")[0]
    assert [frame.shape for frame in frames] == [(30, 40, 3)] * 6
