"""Where pairs come from: folders, archives, hostile ones too, and what is said of bad ones."""

import argparse
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import PurePosixPath, PureWindowsPath

import cv2
import numpy as np
import pytest

import utils.data.sources
from shell import ROOT, make_pair, zip_folders
from utils.command import InputError
from utils.data.pictures import MAX_BYTES, PLAIN, MaskConvention
from utils.data.sources import (
    Listing,
    add_mask_arguments,
    archive_source,
    folder_source,
    mask_convention,
    paired_source,
    watch_decoders,
)


def read_all(source):
    """Return all pairs, decoded, as `data_preprocessing.py` goes through them."""
    with watch_decoders(source, source.names):
        return [source.decode(name) for name in source.names]


def assert_refused(make, *words):
    """Making a source or reading it ends in one line with these words."""
    with pytest.raises(InputError) as error:
        read_all(make())
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_folder_and_an_archive_hold_the_same_pairs(folders, tmp_path):
    archive = archive_source(zip_folders(folders, tmp_path / "pairs.zip"))
    folder = folder_source(*folders)
    assert archive.names == folder.names == [f"{number:02d}" for number in range(20)]
    for number, *pairs in zip(range(20), read_all(archive), read_all(folder), strict=True):
        for picture, mask in pairs:
            np.testing.assert_array_equal(picture, make_pair(number)[0])
            np.testing.assert_array_equal(mask, make_pair(number)[1])


def test_an_archive_whose_paths_are_those_of_windows_is_taken(folders, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for file in (file for folder in folders for file in folder.iterdir()):
            member = zipfile.ZipInfo()
            member.filename = f"{file.parent.name}\\{file.name}"
            archive.writestr(member, file.read_bytes())
    assert b"images\\00.png" in (tmp_path / "other.zip").read_bytes()
    source = archive_source(tmp_path / "other.zip")
    np.testing.assert_array_equal(source.decode("07")[1], make_pair(7)[1])


def test_a_link_to_what_is_not_there_is_named(folders):
    (folders[1] / "07.png").unlink()
    (folders[1] / "07.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"07\.png: is a link to what is not there; mend or"):
        folder_source(*folders)


@pytest.mark.parametrize("name", ["a.npy", "a.mat", "a.nii.gz", "a.dcm", "a.HEIC", "a.txt"])
def test_files_instead_of_pictures_are_named(name, folders, tmp_path):
    for path in list(folders[1].iterdir()):
        path.unlink()
    (folders[1] / name).write_bytes(b"0 0.1 0.2")
    words = rf"masks/{name} is of no kind that is read: export pictures and masks as PNG$"
    for make in (lambda: folder_source(*folders), lambda: archive_source(tmp_path)):
        with pytest.raises(InputError, match=words):
            make()


def test_files_of_other_kinds_are_passed_over(folders):
    (folders[0] / "00.png").rename(folders[0] / "00.jfif")  # what it is its bytes tell
    (folders[0] / "notes.txt").write_text("not a picture")
    (folders[1] / ".hidden.png").write_bytes(b"")
    (folders[1] / "a folder.png").mkdir()
    assert len(folder_source(*folders).names) == 20


BAD_FOLDERS = {
    "missing mask": (lambda i, m: (m / "05.png").unlink(), ["05.png", "no mask"]),
    "missing picture": (lambda i, m: (i / "05.png").unlink(), ["05.png", "no picture"]),
    "doubled stem": (lambda i, m: (i / "05.bmp").touch(), ["05.png", "same name"]),
    "empty folder": (lambda i, m: [path.unlink() for path in i.iterdir()], ["images", "no pict"]),
    "no folder": (lambda i, m: i.rename(i.with_name("x")), ["images", "No such file"]),
    "too large": (
        lambda i, m: os.truncate(i / "05.png", MAX_BYTES + 1),
        ["images/05.png: is too large, 50,000,001 bytes", "limit is 50,000,000"],
    ),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folders_are_refused_in_a_line(spoil, words, folders):
    spoil(*folders)
    assert_refused(lambda: folder_source(*folders), *words)


def rename(folders, stem):
    for folder in folders:
        (folder / "05.png").rename(folder / f"{stem}.png")


@pytest.mark.parametrize("stem", ["a b", "息肉 ä", "x" * 200, "a\N{NO-BREAK SPACE}b", "05.tar"])
def test_names_of_all_kinds_are_taken(stem, folders):
    rename(folders, stem)
    assert stem in folder_source(*folders).names


@pytest.mark.parametrize("stem", ["a\nb", "a\x1b[2Jb", os.fsdecode(b"a\xe4")])
def test_names_that_are_no_text_are_refused(stem, folders):
    rename(folders, stem)
    with pytest.raises(InputError, match="has a character in its name that is no text; rename it"):
        folder_source(*folders)


def test_paths_of_windows_and_of_archives_have_the_same_stems():
    def read(file):
        raise AssertionError

    for kind, top in ((PureWindowsPath, "C:\\my data\\"), (PurePosixPath, "top/")):
        images, masks = (
            {kind(top + f"{folder}/{end}/05.{end}"): ("x", f"05.{end}")}
            for folder, end in (("a", "jpg"), ("b", "PNG"))
        )
        listing = Listing("label", images | masks, read, lambda file: None)
        assert paired_source(listing, images, masks).names == ["x/05"]


# Archives


def damage(path):
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)


def patch_directory(path, offset, layout, value, name=b"top/images/05.png"):
    """Overwrite a field of a file's entry in the directory of an archive."""
    content = bytearray(path.read_bytes())
    begin = content.rindex(name) - 46  # the length of what stands before the name
    assert content[begin : begin + 4] == b"PK\x01\x02"
    struct.pack_into(layout, content, begin + offset, value)
    path.write_bytes(content)


def add_again(path):
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("top/images/05.png", b"other")


def long_directory(path):
    """Leave nothing but a directory of 30 MB, with as many files."""
    size = 30_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0)
    path.write_bytes(bytes(size) + end)


NO_ZIP = "is damaged; name a whole zip file, or fetch it again"
BAD_ARCHIVES = {
    "not a zip": (lambda path: path.write_text("text"), [NO_ZIP]),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 99), [NO_ZIP]),
    "damaged": (damage, ["damaged"]),
    "missing": (lambda path: path.unlink(), ["No such file"]),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), ["has no folder images/"]),
    "encrypted": (lambda path: patch_directory(path, 8, "<H", 1), ["05.png is encrypted"]),
    "patched": (lambda path: patch_directory(path, 8, "<H", 1 << 5), ["05.png is encrypted"]),
    "strongly encrypted": (
        lambda path: patch_directory(path, 8, "<H", 1 << 6),
        ["05.png is encrypted"],
    ),
    "of 4 GB packed": (
        lambda path: patch_directory(path, 20, "<L", 0xFFFFFFF0),
        ["top/images/05.png: is too large, 4,294,967,280 bytes"],
    ),
    "of bzip2": (lambda path: patch_directory(path, 10, "<H", 12), ["not packed by Deflate"]),
    "a link": (lambda path: patch_directory(path, 38, "<L", 0o120777 << 16), ["is a link"]),
    "of 4 GB": (
        lambda path: patch_directory(path, 24, "<L", 0xFFFFFFF0),
        ["top/images/05.png: is too large, 4,294,967,280 bytes"],
    ),
    "another version": (lambda path: patch_directory(path, 6, "<H", 99), [NO_ZIP]),
    "name no UTF-8": (
        lambda path: (
            patch_directory(path, 8, "<H", 0x800),
            patch_directory(path, 46, "<B", 0xFF),
        ),
        [NO_ZIP],
    ),
    "outside": (lambda path: patch_directory(path, 42, "<L", 2**31), ["05.png is damaged"]),
    "doubled": (add_again, ["top/images/05.png stands there twice"]),
    "too many files": (long_directory, ["too many files"]),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives_are_refused_in_a_line(spoil, words, folders, tmp_path):
    path = zip_folders(folders, tmp_path / "pairs.zip")
    spoil(path)
    assert_refused(lambda: archive_source(path), "pairs.zip", *words)


@pytest.mark.parametrize("kind", [0, 1])
def test_an_archive_of_another_layout_is_refused(kind, folders, tmp_path):
    path = zip_folders(folders[kind : kind + 1], tmp_path / "pairs.zip")
    assert_refused(lambda: archive_source(path), "pairs.zip", "has no folder")


def test_an_archive_in_an_archive_is_no_picture(folders, tmp_path):
    inner = zip_folders(folders, tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "images/inner.zip")
    assert_refused(lambda: archive_source(tmp_path / "outer.zip"), "outer.zip", "no folder images/")


@pytest.mark.parametrize(
    "name", [b"../../images/05.png", b"/etc/images/05.png", b"images/\xe4.png"]
)
def test_names_that_point_outside_or_are_of_another_encoding_write_nothing(name, folders, tmp_path):
    path = tmp_path / "pairs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for folder in folders:
            file = name.replace(b"images", folder.name.encode()).replace(b"\xe4", b"placeholder")
            archive.writestr(file.decode(), (folder / "05.png").read_bytes())
    path.write_bytes(path.read_bytes().replace(b"placeholder", b"12345678\xe4__"))
    before = {*tmp_path.rglob("*")}
    source = archive_source(path)
    np.testing.assert_array_equal(read_all(source)[0][0], make_pair(5)[0])
    assert source.names == ["12345678Σ__" if b"\xe4" in name else "05"]  # code page 437
    assert {*tmp_path.rglob("*")} == before


BOMB = """
import resource, struct, sys, zipfile
import data_preprocessing
from utils.command import InputError
from utils.data.sources import archive_source

path = sys.argv[1]
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    archive.writestr("masks/a.png", b"")
    with archive.open("images/a.png", "w", force_zip64=True) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
content = bytearray(open(path, "rb").read())
begin = content.rindex(b"images/a.png") - 46
assert struct.unpack_from("<L", content, begin + 24) == (300 << 20,)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for claimed in (300 << 20, 1000):
    struct.pack_into("<L", content, begin + 24, claimed)
    open(path, "wb").write(content)
    try:
        archive_source(path).decode("a")
    except InputError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_zip_bomb_takes_no_memory_whatever_it_claims(tmp_path):
    line = [sys.executable, "-c", BOMB, str(tmp_path / "bomb.zip")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    claims, lies, megabytes = done.stdout.splitlines()
    assert "bomb.zip: images/a.png: is too large, 314,572,800 bytes; the limit is 50," in claims
    assert "images/a.png is damaged (Bad CRC-32" in lies
    assert int(megabytes) < 50


# Masks of other conventions


def spell(*flags):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_mask_arguments(parser)
    return mask_convention(parser.parse_args(flags))


def test_the_flags_make_a_convention():
    assert spell() == MaskConvention()
    suffix = MaskConvention("NAME=NAME_mask", (38,))
    assert spell("--mask-suffix", "_mask", "--mask-value", "38") == suffix
    assert spell("--mask-names", "NAME_a=bNAME").names == "NAME_a=bNAME"
    assert spell("--mask-value", "255,0,10", "7").values == ((255, 0, 10), 7)
    assert spell("--mask-threshold", "128").threshold == 128
    assert spell("--mask-inverted", "--mask-resize") == PLAIN._replace(inverted=True, resize=True)
    assert spell("--mask-resize", "stretch").resize == "stretch"
    assert spell("--mask-unite").unite


@pytest.mark.parametrize("rule", ["", "_mask", "NAME", "NAME=mask", "a=NAME", "a/NAME=NAME"])
def test_what_is_no_rule_for_names_is_refused(rule):
    with pytest.raises(argparse.ArgumentError, match="is no rule such as NAME_image=NAME_mask"):
        spell(f"--mask-names={rule}")


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "65536", "1,2", "1,2,256", "1,2,3,4", "²"])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(argparse.ArgumentError, match="neither a value from 0 to 65535 nor a col"):
        spell(f"--mask-value={value}")


@pytest.mark.parametrize("same", [False, True], ids=["two folders", "the same folder"])
def test_a_suffix_tells_masks_and_is_named_where_it_is_missing(same, folders):
    images, masks = folders
    for path in sorted(masks.iterdir()):
        path.rename((images if same else masks) / f"{path.stem}_mask.PNG")
    folders = (images, images) if same else (images, masks)
    if same:
        cv2.imwrite(str(images / "05_other.png"), make_pair(5)[0])
        (images / "05_other.png").rename(images / "99_other.png")
        assert_refused(
            lambda: folder_source(*folders, MaskConvention("NAME=NAME_mask")),
            "99_other.png: has no mask of the same name and '_mask'",
        )
        (images / "99_other.png").unlink()
        assert_refused(lambda: folder_source(*folders), "add --mask-suffix _mask")
    else:
        assert_refused(
            lambda: folder_source(*folders),
            "00.png: has no mask of the same name (20 such files in all); if 00_mask.PNG is it, add"
            " --mask-suffix _mask",
        )
    for masks in (folders[1], f"{folders[1]}/../{folders[1].name}"):  # another spelling
        source = folder_source(folders[0], masks, MaskConvention("NAME=NAME_mask"))
        assert source.names == [f"{number:02d}" for number in range(20)]
    np.testing.assert_array_equal(read_all(source)[7][1], make_pair(7)[1])


def test_the_suffix_that_a_refusal_names_is_the_whole_one(folders):
    for path in folders[1].iterdir():
        path.rename(path.with_name(f"{path.stem}_seg_m.png"))
    with pytest.raises(InputError, match=r"if 00_seg_m\.png is it, add --mask-suffix _seg_m$"):
        folder_source(*folders, MaskConvention("NAME=NAME_m"))


def test_a_mask_that_has_its_picture_is_nobody_elses(folders):
    for folder in folders:
        (folder / "05.png").rename(folder / "051.png")
        (folder / "06.png").rename(folder / "05.png")
    (folders[1] / "05.png").unlink()
    with pytest.raises(InputError, match=r"05\.png: has no mask .* a folder for --normals$"):
        folder_source(*folders)


# JPEGs that are damaged


def spoil_jpeg(folder):
    """Replace 05.png by a JPEG with bytes that belong to nothing, as flipped bits leave them."""
    data = cv2.imencode(".jpg", cv2.imread(str(folder / "05.png")))[1].tobytes()
    (folder / "05.png").unlink()
    (folder / "05.jpg").write_bytes(data[:-2] + bytes(20) + data[-2:])


@pytest.mark.parametrize("kind", [0, 1], ids=["picture", "mask"])
def test_a_damaged_jpeg_is_named_and_the_decoders_are_silent(kind, folders, capfd):
    read_all(folder_source(*folders))
    spoil_jpeg(folders[kind])
    assert_refused(lambda: folder_source(*folders), "05.jpg: a damaged JPEG, only a part")
    assert capfd.readouterr().err == ""


def test_an_unreadable_pair_is_refused_in_silence(folders, capfd):
    os.truncate(folders[0] / "05.png", 500)
    assert_refused(lambda: folder_source(*folders), "05.png: a PNG that is cut off or damaged")
    assert capfd.readouterr().err == ""


def test_the_bounds_can_be_met(folders, tmp_path, monkeypatch):
    path = zip_folders(folders, tmp_path / "pairs.zip")
    with zipfile.ZipFile(path) as archive:
        sizes = [max(entry.file_size, entry.compress_size) for entry in archive.infolist()]
    monkeypatch.setattr(utils.data.pictures, "MAX_BYTES", max(sizes))
    monkeypatch.setattr(utils.data.sources, "MAX_DIRECTORY", max(sizes))
    assert len(read_all(archive_source(path))) == 20
