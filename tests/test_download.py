"""The download, against a real HTTP server: breaks, restarts, refusals, and files that changed."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from server import serve
from shell import full_disk, no_rights
from utils.command import InputError
from utils.data import download as room
from utils.files import lock_folder

ROOT = Path(__file__).parents[1]
CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACKET = 1 << 16  # what is written at a time, so the most that a break can lose


@pytest.fixture
def server():
    with serve(CONTENT) as server:
        yield server


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(room, "BACKOFF", 0.01)
    monkeypatch.setattr(room, "TIMEOUT", (2, 0.3))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "archive.zip"


def part_of(path):
    return path.with_name("archive.zip.part")


def download(server, path):
    room.download_archive(server.url, path, len(CONTENT), SHA256)


def assert_downloaded(path):
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["archive.zip"]


def test_a_file_is_streamed_verified_and_renamed(server, path):
    download(server, path)
    assert_downloaded(path)
    assert server.ranges == [None]
    assert server.encodings == {"identity"}


def test_a_verified_archive_is_not_fetched_again(server, path, capsys):
    download(server, path)
    download(server, path)
    assert len(server.ranges) == 1
    assert "here already" in capsys.readouterr().out


def test_another_file_of_that_name_is_left_alone(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"archive\.zip: not the archive .* --archive"):
        download(server, path)
    assert path.read_bytes() == b"mine"
    assert server.ranges == []


def test_after_a_break_only_the_rest_is_asked_for(server, path, capsys):
    server.plan = [100_000, 100_000, "whole"]
    download(server, path)
    assert_downloaded(path)
    assert server.ranges == [None, f"bytes={PACKET}-", f"bytes={2 * PACKET}-"]
    assert server.sent < len(CONTENT) + 2 * PACKET
    assert "next try in" in capsys.readouterr().out


def test_an_earlier_run_is_gone_on_with(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT[:123_456])
    download(server, path)
    assert_downloaded(path)
    assert server.ranges == ["bytes=123456-"]


def test_a_part_that_is_whole_needs_a_name_only(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT)
    download(server, path)
    assert_downloaded(path)
    assert server.sent == 0


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 400_000], ids=["shorter", "longer"])
def test_a_part_of_another_file_is_replaced(server, path, stale):
    path.parent.mkdir()
    part_of(path).write_bytes(stale)
    download(server, path)
    assert_downloaded(path)


def test_a_server_without_ranges_sends_all_anew(server, path):
    server.plan = [100_000, "no ranges"]
    download(server, path)
    assert_downloaded(path)


@pytest.mark.parametrize("how", ["no length", "gzip"])
def test_a_file_is_whole_by_its_known_size_where_the_server_does_not_say(server, path, how):
    server.plan = [how]
    download(server, path)
    assert_downloaded(path)
    assert len(server.ranges) == 1


def test_a_short_body_without_a_length_is_gone_on_with(server, path):
    server.plan = ["short", "short", "no length"]
    download(server, path)
    assert_downloaded(path)
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("how", ["announces more", "announces less", "another range"])
def test_a_server_that_lies_about_a_piece_is_asked_until_the_file_is_whole(server, path, how):
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT[:123_456])
    server.plan = [how, "whole"]
    download(server, path)
    assert_downloaded(path)


@pytest.mark.parametrize("have", [0, 123_456])
def test_a_web_page_is_told_and_leaves_what_was_there(server, path, have):
    path.parent.mkdir()
    if have:
        part_of(path).write_bytes(CONTENT[:have])
    server.plan = ["page"]
    with pytest.raises(InputError) as error:
        download(server, path)
    assert_ways_on(error, server.url, "sends a web page", "ARCHIVE_URL")
    assert len(server.ranges) == 1
    assert [file.read_bytes() for file in path.parent.iterdir()] == [CONTENT[:have]] * bool(have)
    server.plan = []
    download(server, path)
    assert_downloaded(path)


UNSAFE = ["file:///etc/passwd", "ftp://127.0.0.1/archive.zip"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        *((place, f"redirects to {place}, which is not safe") for place in UNSAFE),
        *((place, "") for place in ("https://[bad", "http://\xff:x/")),  # no addresses at all
    ],
)
def test_a_redirect_to_no_server_of_the_web_is_refused_at_once(target, said, server, path):
    server.plan = [target]
    with pytest.raises(InputError) as error:
        download(server, path)
    assert_ways_on(error, server.url, said)
    assert len(server.ranges) == 1
    assert not path.parent.exists()


def test_a_redirect_to_another_place_is_followed_and_a_ring_is_not(server, path):
    server.plan = [server.url, "whole"]
    download(server, path)
    assert_downloaded(path)
    server.plan = [server.url]
    with pytest.raises(InputError) as error:
        download(server, path.with_name("other.zip"))
    assert_ways_on(error, "TooManyRedirects")


def test_what_a_redirect_sends_beside_is_not_read(server, path):
    server.plan = ["endless redirect", "whole"]
    download(server, path)
    assert_downloaded(path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a file with a key and a certificate for 127.0.0.1, signed by itself alone."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not here")
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    line += f" -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout {path} -out -"
    done = subprocess.run(line.split(), capture_output=True, check=True)
    path.write_bytes(path.read_bytes() + done.stdout)
    return path


def test_a_certificate_that_is_not_valid_is_refused_at_once(certificate, path, capsys):
    with serve(CONTENT, certificate) as server:
        with pytest.raises(InputError) as error:
            download(server, path)
        assert_ways_on(error, server.url, "certificate is not valid")
        assert server.ranges == []
    assert "next try" not in capsys.readouterr().out
    assert not path.parent.exists()


def test_https_never_becomes_plain_http(certificate, server, path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serve(CONTENT, certificate) as safe:
        safe.plan = [server.url]
        with pytest.raises(InputError) as error:
            download(safe, path)
        assert_ways_on(error, safe.url, f"redirects to {server.url}, which is not safe")
        safe.plan = []
        download(safe, path)
    assert_downloaded(path)
    assert server.ranges == []


@pytest.mark.parametrize("url", ["archive.zip", "htp://127.0.0.1/archive.zip", "http://"])
def test_an_address_that_is_none_is_refused_at_once(url, path, capsys):
    with pytest.raises(InputError) as error:
        room.download_archive(url, path, len(CONTENT), SHA256)
    assert_ways_on(error, url, "ARCHIVE_URL")
    assert "next try" not in capsys.readouterr().out


def test_a_full_disk_is_named_and_the_same_command_goes_on(server, path):
    with full_disk(150_000), pytest.raises(InputError) as error:
        download(server, path)
    assert str(error.value) == (
        f"{path}: cannot be written (File too large): make room or choose another place"
    )
    assert part_of(path).read_bytes() == CONTENT[:150_000]
    download(server, path)
    assert_downloaded(path)
    assert server.ranges[-1] == "bytes=150000-"


def test_a_folder_without_the_right_to_write_is_named(server, strangers_folder):
    with no_rights(), pytest.raises(InputError, match=r"data: .*get the right to write there"):
        download(server, strangers_folder / "data" / "archive.zip")


def test_a_folder_in_the_archives_place_is_named(server, path):
    path.mkdir(parents=True)
    with pytest.raises(InputError, match=r"archive\.zip: cannot be read \(Is a directory\); move"):
        download(server, path)


def test_two_downloads_do_not_write_into_one_part(server, path):
    with lock_folder(path.parent), pytest.raises(InputError, match="data: another process"):
        download(server, path)


def test_an_endless_body_is_refused(server, path):
    server.plan = ["endless"]
    with pytest.raises(InputError) as error:
        download(server, path)
    assert_ways_on(error, server.url, "more than twice the 300,000 bytes", "ARCHIVE_URL")
    assert not path.parent.exists()


def test_breaks_are_borne_as_long_as_each_try_brings_something(server, path, monkeypatch):
    monkeypatch.setattr(room, "PIECE", 1 << 12)
    waits = []
    monkeypatch.setattr(room.time, "sleep", waits.append)
    server.plan = [*[20_000] * (2 * room.ATTEMPTS), 503, 503, "whole"]
    download(server, path)
    assert_downloaded(path)
    assert waits == [0.01] * (2 * room.ATTEMPTS) + [0.02, 0.04]


@pytest.mark.parametrize("have", [0, 1000])
def test_a_server_that_has_nothing_of_a_file_is_named(have, server, path):
    path.parent.mkdir()
    if have:
        part_of(path).write_bytes(bytes(have))
    server.plan = [416]
    with pytest.raises(InputError) as error:
        download(server, path)
    assert_ways_on(error, server.url, "the server answers 416", "ARCHIVE_URL")


@pytest.mark.parametrize("status", [503, 500, 429])
def test_a_busy_server_is_asked_again(server, path, status):
    server.plan = [status, status, "whole"]
    download(server, path)
    assert_downloaded(path)


def test_a_stalled_connection_is_given_up_and_resumed(server, path):
    server.plan = ["stall", "whole"]
    download(server, path)
    assert_downloaded(path)
    assert server.ranges == [None, f"bytes={PACKET}-"]


def assert_ways_on(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in (*words, "--archive", "--demo"):
        assert word in message


def test_a_server_that_stays_busy_is_reported_and_the_part_kept(server, path):
    server.plan = [100_000, 503]
    with pytest.raises(InputError) as error:
        download(server, path)
    assert_ways_on(error, server.url, "503", "run again")
    assert part_of(path).read_bytes() == CONTENT[:PACKET]
    assert not path.exists()
    server.plan = []
    download(server, path)
    assert_downloaded(path)


def test_a_file_that_has_moved_is_reported_at_once(server, path):
    server.plan = [404]
    with pytest.raises(InputError) as error:
        download(server, path)
    assert_ways_on(error, server.url, "404", "ARCHIVE_URL")
    assert len(server.ranges) == 1


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:-5], CONTENT + b"more"])
def test_a_file_that_has_changed_is_kept_aside(server, path, content):
    server.content = content
    with pytest.raises(InputError) as error:
        download(server, path)
    aside = path.with_name("archive.unverified.zip")
    assert_ways_on(error, "has changed", f"--archive {aside}")
    assert aside.read_bytes() == content
    assert not path.exists()


def test_no_server_is_reported(server, path):
    server.server_close()
    url = "http://127.0.0.1:1/archive.zip"
    with pytest.raises(InputError) as error:
        room.download_archive(url, path, len(CONTENT), SHA256)
    assert_ways_on(error, url, "no connection")


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    words = "data: cannot be written .*choose another place"
    with pytest.raises(InputError, match=words):
        download(server, tmp_path / "data" / "archive.zip")


def tiny_archive(path):
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):
            picture = random.integers(0, 256, (40, 50, 3), np.uint8)
            mask = np.zeros((40, 50), np.uint8)
            mask[10:25, 10 + number : 30] = 255
            for kind, image in (("images", picture), ("masks", mask)):
                jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                archive.writestr(f"segmented-images/{kind}/{number:02d}.jpg", jpeg)
    return path.read_bytes()


def run_main(server, content, cwd):
    code = f"""
import data_preprocessing as data
data.ARCHIVE_URL = {server.url!r}
data.ARCHIVE_BYTES = {len(content)}
data.ARCHIVE_SHA256 = {hashlib.sha256(content).hexdigest()!r}
import utils.data.download
utils.data.download.BACKOFF = 0.01
data.run(data.main)
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_downloads_and_prepares(server, tmp_path):
    content = tiny_archive(tmp_path / "tiny.zip")
    server.content, server.plan = content, [503, 2000, "whole"]
    done = run_main(server, content, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "20 pairs" in done.stdout
    summary = json.loads((tmp_path / "data/processed/dataset.json").read_text())
    assert summary["archive_sha256"] == hashlib.sha256(content).hexdigest()
    assert summary["pairs"]["all"] == 20


def test_the_script_fails_with_a_line(server, tmp_path):
    server.plan = [404]
    done = run_main(server, CONTENT, tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "404" in done.stderr
    assert not (tmp_path / "data/processed").exists()
