"""Which mask belongs to which picture, in names and layouts as people have them."""

import json
import re
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from shell import ROOT, make_pair, zip_folders
from utils.command import InputError
from utils.data.pairing import group_by_folder, pair_files
from utils.data.pictures import PLAIN, MaskConvention
from utils.data.scenes import UNKNOWN
from utils.data.sources import archive_source, folder_source

NUMBERS = range(1, 13)


def keys(folder, names):
    """Return the paths of files in a folder, and what `pair_files` compares of them."""
    return {Path(folder, f"{name}.png"): name for name in names}


def pair(pictures, masks, rule=PLAIN.names, unite=False):
    """Return the stems of what `pair_files` makes of two folders with these names."""
    convention = MaskConvention(names=rule, unite=unite)
    pairs = pair_files("label", keys("images", pictures), keys("masks", masks), convention)
    return {name: [file.stem for file in files] for name, files in pairs.items()}


def refusal(*arguments):
    with pytest.raises(InputError) as error:
        pair(*arguments)
    return str(error.value)


NAMES = {  # the names of picture and mask: the flag that pairs them, and the name of the pair
    ("{}", "{}_mask"): ("--mask-suffix _mask", "{}"),
    ("{}", "p{}"): ("--mask-names NAME=pNAME", "{}"),
    ("{}_image", "{}_mask"): ("--mask-names NAME_image=NAME_mask", "{}"),
    ("img_{}", "mask_{}"): ("--mask-names img_NAME=mask_NAME", "{}"),
    ("a{}_0000", "a{}"): ("--mask-names NAME_0000=NAME", "a{}"),
    ("seq/{}", "seq/{} (m)"): ("--mask-suffix ' (m)'", "seq/{}"),
}


@pytest.mark.parametrize("kind", NAMES, ids=" ".join)
def test_the_line_names_the_flag_that_pairs_most(kind):
    """Of pictures 1 to 12, of which 1 begins 10 to 12, and one has no mask at all."""
    flag, name = NAMES[kind]
    pictures, masks = ([made.format(number) for number in NUMBERS] for made in kind)
    line = refusal(pictures, masks[:-1])
    assert line.startswith(f"images/{min(pictures)}.png: has no mask of the same name (12 such")
    assert f"; if {Path(masks[pictures.index(min(pictures))]).name}.png is it, add {flag}" in line
    option, value = re.fullmatch(r"(\S+) '?([^']+)'?", flag).groups()
    rule = value if option == "--mask-names" else f"NAME=NAME{value}"
    assert sorted(pair(pictures, masks, rule)) == sorted(name.format(n) for n in NUMBERS)


@pytest.mark.parametrize("count", [6, 5])
def test_no_flag_is_named_that_pairs_less_than_half(count):
    """Of 12 pictures."""
    masks = [f"p{n}" if n <= count else f"other{chr(96 + n)}" for n in NUMBERS]
    line = refusal([str(n) for n in NUMBERS], masks)
    assert ("--mask-names NAME=pNAME" in line) == (count == 6)
    assert ("add --mask" in line) == (count == 6)


ONE_DEEPER = {  # pictures and masks: what the pairs are called; None if it is left open
    "masks in one folder": (["1", "2"], ["polyp/1", "polyp/2"], ["1", "2"]),
    "pictures in one folder": (["c/1", "c/2"], ["1", "2"], ["1", "2"]),
    "below a common folder": (["x/1", "x/2"], ["x/y/1", "x/y/2"], ["x/1", "x/2"]),
    "one folder in both": (["x/1", "x/2"], ["x/1", "x/2"], ["x/1", "x/2"]),
    "a mask beside it": (["1", "2"], ["polyp/1", "2"], None),
    "two folders of masks": (["1", "2"], ["polyp/1", "polyp/2", "bowel/1", "bowel/2"], None),
    "folders of other names": (["case1/1"], ["case2/1"], None),
}


@pytest.mark.parametrize(("pictures", "masks", "names"), ONE_DEEPER.values(), ids=ONE_DEEPER)
def test_a_folder_around_all_files_of_one_side_does_not_count(pictures, masks, names):
    if names:
        assert list(pair(pictures, masks)) == names
    else:
        assert "has no mask of the same name" in refusal(pictures, masks)


def test_a_name_of_each_side_stands_in_the_line():
    assert refusal(["a", "b"], ["a", "c"]) == (
        "images/b.png: has no mask of the same name; masks/c.png has no picture"
    )
    assert refusal(["a", "b"], ["a_m", "b"], "NAME=NAME_m").startswith(
        "images/b.png: has no mask of the same name and '_m'; masks/b.png has no picture"
    )


def test_names_are_compared_in_nfc_and_without_case_unless_two_would_be_alike():
    composed, other = "Größe é", unicodedata.normalize("NFD", "Größe é")
    assert composed != other
    assert list(pair([other], [composed])) == [composed]
    assert pair(["IMG_1"], ["img_1"]) == {"IMG_1": ["IMG_1", "img_1"]}
    assert pair(["a", "A"], ["A", "a"]) == {"a": ["a", "a"], "A": ["A", "A"]}
    assert "has no mask" in refusal(["a", "A"], ["A", "b"])


SEVERAL = ["a_mask", "a_mask_1", "a_mask2", "b_mask"]


def test_several_masks_of_a_picture_are_refused_or_united():
    assert refusal("ab", SEVERAL, "NAME=NAME_mask") == (
        "masks/a_mask2.png: has no picture of the same name and '_mask' (2 such files in all); if"
        " it is one of several masks of images/a.png, add --mask-unite"
    )
    united = pair("ab", SEVERAL, "NAME=NAME_mask", True)
    assert united == {"a": ["a", "a_mask", "a_mask_1", "a_mask2"], "b": ["b", "b_mask"]}
    in_folders = pair("ab", ["a/1", "a/2", "b/1"], PLAIN.names, True)
    assert in_folders == {"a": ["a", "1", "2"], "b": ["b", "1"]}
    assert "masks/12.png: has no picture" in refusal(
        ["1", "2"], ["1", "2", "12"], "NAME=NAME", True
    )
    assert pair(["a", "a_1"], ["a", "a_1", "a_1_2"], PLAIN.names, True)["a_1"][1:] == [
        *("a_1", "a_1_2")
    ]


def write(folder, name, image):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def test_united_masks_are_one(tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    write(tmp_path, "a.png", make_pair(0)[0])
    for number, name in enumerate(("a_mask.png", "a_mask_1.png", "a_mask_2.png")):
        part = np.zeros_like(mask)
        part[5 + 10 * number : 10 + 10 * number, 5:20] = 255
        write(tmp_path, name, part)
        mask |= part
    suffix = MaskConvention(names="NAME=NAME_mask")
    with pytest.raises(InputError, match=r"a_mask_1\.png: has no mask .*add --mask-unite$"):
        folder_source(tmp_path, tmp_path, suffix)
    source = folder_source(tmp_path, tmp_path, suffix._replace(unite=True))
    assert source.label == str(tmp_path)
    np.testing.assert_array_equal(source.decode("a")[1], mask)
    assert [line.partition(": ")[2] for line in source.notes()] == [
        "several masks were united for 1 of the pictures"
    ]


def test_half_of_the_pairs_in_a_folder_below_are_pairs_too(folders):
    for folder in folders:
        for path in sorted(folder.iterdir())[:10]:
            (folder / "more").mkdir(exist_ok=True)
            path.rename(folder / "more" / path.name)
    source = folder_source(*folders)
    assert source.names == [
        *(f"{number:02d}" for number in range(10, 20)),
        *(f"more/{number:02d}" for number in range(10)),
    ]
    assert set(source.groups) == {UNKNOWN}
    assert "not around all pictures" in source.notes()[0]


def move_into_cases(folders, count):
    """Let the pairs lie in folders of the same names; leave `count` such cases."""
    for folder in folders:
        for number, path in enumerate(sorted(folder.iterdir())):
            case = folder / f"case{number % count}"
            case.mkdir(exist_ok=True)
            path.rename(case / f"{number // count:03d}.png")


@pytest.mark.parametrize("kind", ["folders", "an archive", "an unpacked archive"])
def test_folders_in_folders_are_scenes(kind, folders, tmp_path):
    move_into_cases(folders, 5)
    if kind == "folders":
        source = folder_source(*folders)
    elif kind == "an archive":
        source = archive_source(zip_folders(folders, tmp_path / "pairs.zip"))
    else:
        source = archive_source(tmp_path)
    assert source.names == [f"case{case}/{number:03d}" for case in range(5) for number in range(4)]
    assert source.groups.tolist() == [case for case in range(5) for _ in range(4)]
    np.testing.assert_array_equal(source.decode("case3/002")[1], make_pair(13)[1])


def test_too_few_folders_and_parts_of_a_data_set_are_no_scenes():
    few = [f"case{number % 4}/{number}" for number in range(20)]
    groups, (line,) = group_by_folder(few)
    assert set(groups) == {UNKNOWN}
    assert line.startswith("its folders are too few")
    for top in ("", "one folder/"):
        groups, lines = group_by_folder([f"{top}{number}" for number in range(20)])
        assert (set(groups), lines) == ({UNKNOWN}, [])
    parts = ["train", "validation", "TestEasyDataset", "val", "Test", "train_set"]
    assert set(group_by_folder([f"{part}/1" for part in parts])[0]) == {UNKNOWN}
    cases = [f"TrainDataset/case{number}/1" for number in range(5)]
    assert group_by_folder(cases)[0].tolist() == [0, 1, 2, 3, 4]


def test_one_folder_in_the_other_holds_no_pictures_of_it(folders):
    images, masks = folders
    masks.rename(images / "Ground Truth")
    assert len(folder_source(images, images / "Ground Truth").names) == 20
    inside = images / "Ground Truth/Original"
    inside.mkdir()
    for path in images.glob("*.png"):
        path.rename(inside / path.name)
    assert len(folder_source(inside, images / "Ground Truth").names) == 20


def test_a_link_that_leads_back_is_no_endless_folder(folders):
    (folders[0] / "again").symlink_to(folders[0])
    assert len(folder_source(*folders).names) == 20


# Published layouts: pictures, masks, and what the pairs 1 and 2 are called
LAYOUTS = [
    ("Kvasir-SEG/images/{}.jpg", "Kvasir-SEG/masks/{}.jpg", "{}"),
    ("CVC-ClinicDB/Original/{}.tif", "CVC-ClinicDB/Ground Truth/{}.tif", "{}"),
    ("CVC-300/bbdd/{}.bmp", "CVC-300/gtpolyp/{}.bmp", "{}"),
    ("Images/{}.png", "Masks/{}.png", "{}"),
    ("voc/JPEGImages/{}.jpg", "voc/SegmentationClass/{}.png", "{}"),
    ("a/image/{}.png", "b/mask/{}.png", "{}"),
    ("data_C{}/images_C{}/x.jpg", "data_C{}/masks_C{}/x.jpg", "data_C{}/x"),
    ("TrainDataset/Frame/case1_{}/a.jpg", "TrainDataset/GT/case1_{}/a.png", "case1_{}/a"),
    ("case{}/images/a.jpg", "case{}/masks/a.png", "case{}/a"),
    ("segmented-images/images/{}.jpg", "segmented-images/masks/{}.jpg", "{}"),
]


@pytest.mark.parametrize(("image", "mask", "name"), LAYOUTS, ids=[line[0] for line in LAYOUTS])
def test_archives_are_taken_as_they_are_published(image, mask, name, tmp_path):
    for number in (1, 2):
        for made, drawn in zip((image, mask), make_pair(number), strict=True):
            write(tmp_path, made.replace("{}", str(number)), drawn)
    write(tmp_path, "Kvasir-SEG/bbox/1.png", make_pair(1)[0])
    (tmp_path / "bounding-boxes.json").write_text("{}")
    source = archive_source(tmp_path)
    assert source.names == [name.format(1), name.format(2)]
    assert re.search(r"left out, 1 in all, most of them in .*/bbox$", source.notes()[0])


def test_parts_of_a_data_set_that_are_taken_together_are_told_of(folders, tmp_path):
    for part in ("TrainDataset", "TestDataset/CVC-300"):
        for folder in folders:
            write(tmp_path / "all", f"{part}/{folder.name}/1.png", cv2.imread(f"{folder}/01.png"))
    source = archive_source(tmp_path / "all")
    assert source.names == ["TestDataset/CVC-300/1", "TrainDataset/1"]
    assert "takes TestDataset, TrainDataset together; prepare one alone" in source.notes()[0]


def test_files_that_are_no_pictures_are_told_of(folders):
    (folders[0] / "scan.dcm").write_text("")
    (folders[0] / "Thumbs.db").write_text("")
    (line,) = folder_source(*folders).notes()
    assert line.endswith("files that are no pictures are left out: " + str(folders[0] / "scan.dcm"))


OTHER_ARCHIVES = {
    "RAR": b"Rar!\x1a\x07\0",
    "tar.gz": b"\x1f\x8b\x08",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "tar": bytes(257) + b"ustar\0",
}


@pytest.mark.parametrize("kind", OTHER_ARCHIVES)
def test_other_archives_are_to_be_unpacked(kind, tmp_path):
    (tmp_path / "a.rar").write_bytes(OTHER_ARCHIVES[kind] + bytes(999))
    with pytest.raises(InputError, match=r"a\.rar: is no zip; unpack it, and name its folder with"):
        archive_source(tmp_path / "a.rar")


def test_folders_of_unknown_names_are_named(folders, tmp_path):
    folders[0].rename(tmp_path / "x")
    with pytest.raises(InputError, match=r"no folder images/.*pictures: .*/x \(20\); name two fo"):
        archive_source(tmp_path)


POLYGONS = {"LabelMe": '{"shapes": []}', "COCO": '{"annotations": []}', "VIA": '{"regions": []}'}


@pytest.mark.parametrize("tool", POLYGONS)
def test_polygons_are_called_what_they_are(tool, folders, tmp_path):
    for path in list(folders[1].iterdir()):
        path.unlink()
    (folders[1] / "a.json").write_text(POLYGONS[tool])
    with pytest.raises(InputError, match=rf"a\.json holds polygons of {tool}: draw masks .*data"):
        folder_source(*folders)
    with pytest.raises(InputError, match=rf"no folder masks/.*a\.json holds polygons of {tool}"):
        archive_source(tmp_path)


def as_labelme(folder, outlines):
    for name, points in outlines.items():
        data = {"imagePath": f"../images/{name}", "shapes": [{"points": points}]}
        (folder / f"{name}.json").write_text(json.dumps(data))


def as_coco(folder, outlines):
    images = [{"id": number, "file_name": name} for number, name in enumerate(outlines)]
    shapes = [
        {"image_id": number, "segmentation": [[value for point in points for value in point]]}
        for number, points in enumerate(outlines.values())
    ]
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": shapes}))


def as_via(folder, outlines):
    data = {}
    for name, points in outlines.items():
        (x, y), polygon = zip(*points, strict=True), {"name": "polygon"}
        shape = {"shape_attributes": polygon | {"all_points_x": x, "all_points_y": y}}
        data[f"{name}123"] = {"filename": name, "regions": [shape]}
    (folder / "a.json").write_text(json.dumps({"_via_img_metadata": data}))


@pytest.mark.parametrize("write_polygons", [as_labelme, as_coco, as_via])
def test_the_pages_lines_draw_masks_from_polygons(write_polygons, folders, tmp_path, monkeypatch):
    images, masks = folders
    outlines = {}
    for path in sorted(masks.iterdir()):
        rows, columns = np.nonzero(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        left, top, right, bottom = map(
            float, (columns.min(), rows.min(), columns.max(), rows.max())
        )
        outlines[path.name] = [(left, top), (right, top), (right, bottom), (left, bottom)]
    (tmp_path / "labels").mkdir()
    write_polygons(tmp_path / "labels", outlines)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)
    line = ["draw_masks.py", images, tmp_path / "drawn", *(tmp_path / "labels").iterdir()]
    monkeypatch.setattr("sys.argv", [str(word) for word in line])
    exec(code, {})
    source = folder_source(images, tmp_path / "drawn")
    for number in (0, 19):
        np.testing.assert_array_equal(source.decode(f"{number:02d}")[1], make_pair(number)[1])


def test_no_pair_at_all_is_refused():
    with pytest.raises(InputError, match=r"pairs\.zip: holds no pairs"):
        pair_files("pairs.zip", {}, {})
