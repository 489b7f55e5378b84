"""One pair: what counts as a mask, and what is left of both at another size."""

import io
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image  # which comes with Matplotlib

from shell import ROOT, read_picture
from utils import MAX_PIXELS
from utils.command import InputError
from utils.data.pictures import (
    PLAIN,
    MaskConvention,
    binary_mask,
    border_fraction,
    decode_image,
    decode_pair,
    reduce_pair,
)


def test_reduction_by_hand():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :2, 0] = [[0, 100], [200, 100]]
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = [[255, 255], [0, 0]]  # half of the area: polyp
    mask[2:, :2] = [[255, 0], [0, 0]]  # a quarter: not
    mask[2:, 2:] = 255
    small, small_mask = reduce_pair(picture, mask, size=2)
    np.testing.assert_array_equal(small[..., 0], [[100, 0], [0, 0]])
    np.testing.assert_array_equal(small_mask[..., 0], [[1, 0], [0, 1]])
    assert small.dtype == small_mask.dtype == np.uint8


def jpeg(mask, quality):
    encoded = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


ROUND_MASK = cv2.circle(np.zeros((60, 60), np.uint8), (30, 30), 20, 255, -1)


GOOD_MASKS = {
    "0 and 255": ROUND_MASK,
    "JPEG of quality 75": jpeg(ROUND_MASK, 75),
    "JPEG of quality 95": jpeg(ROUND_MASK, 95),
    "0 and 1": ROUND_MASK // 255,
    "16 bits": ROUND_MASK.astype(np.uint16) * 257,
    "0 and 1 in 16 bits": ROUND_MASK.astype(np.uint16) // 255,
}


@pytest.mark.parametrize("mask", GOOD_MASKS.values(), ids=GOOD_MASKS)
def test_two_valued_masks_are_taken(mask):
    binary = binary_mask(mask, "name", lossy=True)
    assert set(np.unique(binary)) == {0, 255}
    assert (binary != ROUND_MASK).mean() <= 0.002


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_value_are_taken(value):
    mask = np.full((8, 8), value, np.uint8)
    np.testing.assert_array_equal(binary_mask(mask, "name", lossy=True), mask)


THREE = np.ones((3, 3), np.uint8)
BAD_MASKS = {
    "three labels": (
        np.repeat(np.uint8([[0, 128, 255]]), 3, axis=0),
        "0 (33.3%), 128 (33.3%), 255 (33.3%); store",
    ),
    "labels 0 and 38": (np.repeat(np.uint8([[0, 38]]), 3, axis=0), "0 (50%), 38 (50%); store"),
    "labels 0, 1, 2": (
        np.repeat(np.uint8([[0, 1, 2]]), 3, axis=0),
        "0 (33.3%), 1 (33.3%), 2 (33.3%); store",
    ),
    "grey": (np.full((3, 3), 100, np.uint8), "it has 100 (100%); store"),
    "a ramp": (np.arange(256, dtype=np.uint8).reshape(16, 16), "it has 0 (9.77%), 25 (9.77%), 50"),
    "0 and 256": (np.uint16([[0, 256]]), "0 (50%), 256 (50%); store"),
    "fractions": (np.eye(3, dtype=np.float32), "float32"),
}


@pytest.mark.parametrize(("mask", "words"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_other_masks_are_refused_with_their_values(mask, words):
    with pytest.raises(InputError) as error:
        binary_mask(mask, "a.png", lossy=True)
    assert str(error.value).startswith("a.png: mask")
    assert words in str(error.value)


LOSSLESS_MASKS = {
    "0, 15, 255": (np.uint8([[0, 15, 255]]), "0, 15, 255"),
    "0 and 206": (np.uint8([[0, 206]]), "0, 206"),
    "0, 254, 255": (np.uint8([[0, 254, 255]]), "0, 254, 255"),
    "1 and 255": (np.uint8([[1, 255]]), "1, 255"),
    "0, 300, 65535": (np.uint16([[0, 300, 65535]]), "0, 300, 65535"),
}


@pytest.mark.parametrize(("mask", "words"), LOSSLESS_MASKS.values(), ids=LOSSLESS_MASKS)
def test_without_loss_there_are_two_values(mask, words):
    words = words.replace(",", r" \(.*%\),")
    with pytest.raises(InputError, match=rf"a\.png: mask is not two-valued, it has {words} \("):
        binary_mask(mask, "a.png", lossy=False)


@pytest.mark.parametrize("white", [207, 253, 254, 255, 65024, 65535])
def test_black_and_one_value_near_white_are_taken_and_told_of(white):
    told, mask = [], np.array([[0, white, 0]], np.uint16 if white > 255 else np.uint8)
    binary = binary_mask(mask, "a.png", False, tell=lambda *given: told.append(given))
    assert binary.tolist() == [[0, 255, 0]]
    lacking = {207: 48 / 255, 253: 2 / 255, 254: 1 / 255, 65024: 511 / 65535}
    assert told == ([("dim", pytest.approx(lacking[white]))] if white in lacking else [])


def test_noise_is_forgiven_up_to_its_bound():
    mask = np.uint8([[0, 48, 207, 255]])
    assert binary_mask(mask, "a.jpg", lossy=True).tolist() == [[0, 0, 255, 255]]
    for level in (49, 206):
        with pytest.raises(InputError, match=rf"is not two-valued, it has 0 \(.*\), {level} \(33"):
            binary_mask(np.uint8([[0, level, 255]]), "a.jpg", lossy=True)


@pytest.mark.parametrize("mask", [m for n, m in GOOD_MASKS.items() if "JPEG" not in n])
def test_two_values_without_loss_are_taken(mask):
    np.testing.assert_array_equal(binary_mask(mask, "name", lossy=False), ROUND_MASK)


def encoded(image, suffix, orientation=None):
    """Return the bytes of a picture file; orientation: of its EXIF, 1 to 8, in a JPEG."""
    data = cv2.imencode(suffix, image)[1].tobytes()
    if orientation:
        tags = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, orientation, 0)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + data[2:]
    return data


def shaded(height, width):
    """Return a picture that is bright at its left end, and a mask of that end."""
    picture = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    picture[:, : width // 4] = mask[:, : width // 4] = 255
    return picture, mask


def assert_together(picture, mask):
    """The mask is where the picture is bright."""
    assert picture.shape[:2] == mask.shape
    assert ((picture[..., 0] > 127) == (mask > 0)).mean() > 0.98


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jp2", ".jpg", ".pgm"])
@pytest.mark.parametrize("factor", [1, 255])
def test_masks_of_all_formats_are_taken(suffix, factor):
    if factor == 1 and suffix in (".jpg", ".webp"):
        pytest.skip("0 and 1 do not survive in it")
    picture, mask = shaded(64, 96)
    data = encoded(picture, ".png"), encoded(mask // 255 * np.uint8(factor), suffix)
    assert_together(*decode_pair(*data, "a.png", f"b{suffix}"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_orientation_that_both_have_is_ignored_in_both(orientation):
    picture, mask = shaded(64, 96)
    files = encoded(picture, ".jpg", orientation), encoded(mask, ".jpg", orientation)
    decoded = decode_pair(*files, "a.jpg", "b.jpg")
    assert decoded[0].shape == (64, 96, 3)
    assert_together(*decoded)


@pytest.mark.parametrize("turned", [False, True], ids=["as stored", "as shown"])
def test_a_mask_is_taken_in_the_orientation_in_which_it_fits(turned):
    picture, mask = shaded(64, 96)
    mask = cv2.rotate(mask, cv2.ROTATE_90_CLOCKWISE) if turned else mask
    files = encoded(picture, ".jpg", 6), encoded(mask, ".png")
    assert_together(*decode_pair(*files, "a.jpg", "b.png"))


@pytest.mark.parametrize(("orientation", "width"), [(3, 96), (6, 64)], ids=["over head", "square"])
def test_a_mask_that_fits_in_both_orientations_is_refused(orientation, width):
    picture, mask = shaded(64, width)
    files = encoded(picture, ".jpg", orientation), encoded(mask, ".png")
    with pytest.raises(InputError, match=r"a\.jpg: either it or its mask b\.png .*EXIF.*unturned"):
        decode_pair(*files, "a.jpg", "b.png")


@pytest.mark.parametrize("value", [0, 255], ids=["no polyp", "all polyp"])
@pytest.mark.parametrize("kind", [".png", ".jpg"], ids=["untagged", "both tagged"])
def test_a_mask_of_one_value_fits_either_way(kind, value):
    mask = encoded(np.full((64, 96), value, np.uint8), kind, 3 if kind == ".jpg" else None)
    picture, decoded = decode_pair(encoded(shaded(64, 96)[0], ".jpg", 3), mask, "a", "b")
    assert (decoded == value).all()
    assert picture[:, :24].mean() > 250  # as it is stored


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_an_orientation_counts_in_every_format_that_has_one(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, mask = shaded(64, 96)
    mask = encoded(cv2.rotate(mask, cv2.ROTATE_90_CLOCKWISE), ".png")
    picture = stored(Image.fromarray(picture), kind, exif=exif)
    assert_together(*decode_pair(picture, mask, "a", "b"))  # as shown: as stored it does not fit


def test_what_follows_a_jpeg_is_no_matter_and_what_it_lacks_is():
    picture, mask = shaded(64, 96)
    whole, mask = encoded(picture, ".jpg"), encoded(mask, ".png")
    assert_together(*decode_pair(whole + bytes(2 * len(whole)), mask, "a", "b"))
    for cut_off in (whole[:-2], whole[: len(whole) // 2], whole[:100]):
        with pytest.raises(InputError, match="a: a JPEG that is cut off"):
            decode_pair(cut_off, mask, "a", "b")


def test_other_sizes_are_refused_by_both_files():
    files = encoded(shaded(64, 96)[0], ".png"), encoded(shaded(96, 64)[1], ".png")
    with pytest.raises(InputError, match=r"a\.png: is 96 x 64, its mask b\.png 64 x 96; they must"):
        decode_pair(*files, "a.png", "b.png")


def grey_with_alpha(grey, alpha):
    """Return a PNG of grey and alpha, which OpenCV reads and does not write."""
    height, width = grey.shape
    lines = np.zeros((height, 1 + 2 * width), np.uint8)
    lines[:, 1::2], lines[:, 2::2] = grey, alpha
    return png(width, height, 4, lines)


def png(width, height, colour_type, lines):
    """Return a PNG of 8 bits; lines: (height, 1 + bytes of a line) uint8, whatever its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_a_mask_in_the_alpha_channel_is_refused():
    picture, mask = shaded(64, 96)
    black, opaque = np.zeros_like(mask), np.full_like(mask, 255)
    picture = encoded(picture, ".png")
    for suffix in (".png", ".webp", ".tif"):
        data = encoded(np.dstack([black] * 3 + [mask]), suffix)
        with pytest.raises(InputError, match=r"b: mask is transparent in places; .*without an alp"):
            decode_pair(picture, data, "a", "b")
        data = encoded(np.dstack([mask] * 3 + [opaque]), suffix)
        assert_together(*decode_pair(picture, data, "a", "b"))
    with pytest.raises(InputError, match="b: mask is transparent"):
        decode_pair(picture, grey_with_alpha(black, mask), "a", "b")
    assert_together(*decode_pair(picture, grey_with_alpha(mask, opaque), "a", "b"))
    clear_black = stored(Image.fromarray(mask), "PNG", transparency=0)
    with pytest.raises(InputError, match="b: mask is transparent"):
        decode_pair(picture, clear_black, "a", "b")


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 0, 4), (0, 1, 0), (255, 254, 255)])
def test_a_mask_of_the_faintest_colour_is_refused(colour):
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[10:20, 10:20] = colour
    with pytest.raises(
        InputError, match=r"in colour, it has .*\(98.4%\), .*\(1.63%\); .*: --mask-value R,G,B$"
    ):
        decode_pair(encoded(mask, ".png"), encoded(mask, ".png"), "a", "b")


def test_noise_is_forgiven_by_what_the_file_is_and_not_by_its_name():
    picture, mask = shaded(64, 96)
    mask[:8] = 15
    picture = encoded(picture, ".png")
    assert set(np.unique(decode_pair(picture, encoded(mask, ".jpg"), "a", "b.png")[1])) == {0, 255}
    with pytest.raises(
        InputError, match=r"b\.jpg: mask is not two-valued, it has 0 .* 15 \(12.5%\); store"
    ):
        decode_pair(picture, encoded(mask, ".png"), "a", "b.jpg")


def test_the_border_is_the_outermost_pixels_once():
    mask = np.zeros((4, 4, 1), np.uint8)
    mask[1:3, 1:3] = 1
    assert border_fraction(mask) == 0
    mask[:, 0] = 1
    assert border_fraction(mask) == 4 / 12


# What docs/data.md says of odd files

COLOUR = (200, 30, 60)  # of shaded() below, where it is bright; grey 84


def stored(image, file_format, **options):
    """Return the bytes of a PIL image in a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def odd_files(bright, dark):
    """Return the bytes of files of all odd kinds: `bright` at the left end, `dark` elsewhere."""
    pixels = np.full((16, 24, 3), dark, np.uint8)
    pixels[:, :6] = bright
    image = Image.fromarray(pixels)
    several = {"save_all": True, "append_images": [image.rotate(180)]}
    wide = pixels[..., ::-1].astype(np.uint16) * 257
    files = {
        "palette": stored(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "GIF": stored(image, "GIF"),
        "CMYK TIFF": stored(image.convert("CMYK"), "TIFF"),
        "16-bit PNG": cv2.imencode(".png", wide)[1].tobytes(),
        "16-bit TIFF": cv2.imencode(".tif", wide)[1].tobytes(),
        "opaque alpha": stored(image.convert("RGBA"), "PNG"),
        "a broken colour profile": stored(image, "PNG", icc_profile=bytes(99)),
    }
    animations = {kind: stored(image, kind, **several) for kind in ("GIF", "PNG", "TIFF")}
    return files | {f"several pictures in a {kind}": data for kind, data in animations.items()}


ODD_PICTURES = odd_files(COLOUR, (0, 0, 0))
ODD_MASKS = odd_files((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("kind", ODD_PICTURES)
def test_odd_pictures_are_read_as_they_are_shown(kind, tmp_path, capfd):
    path = tmp_path / "a\nb.png"
    path.write_bytes(ODD_PICTURES[kind])
    picture = read_picture(path)
    assert (picture.shape, picture.dtype) == ((16, 24, 3), np.uint8)
    np.testing.assert_allclose(picture[:, :6], np.broadcast_to(COLOUR, (16, 6, 3)), atol=1)
    assert not picture[:, 6:].any()
    assert capfd.readouterr().err == ""  # libpng warns of the profile


@pytest.mark.parametrize("kind", ODD_MASKS)
def test_odd_masks_are_read_as_they_are_shown(kind):
    mask = decode_pair(ODD_PICTURES[kind], ODD_MASKS[kind], "a", "b")[1]
    np.testing.assert_array_equal(mask, shaded(16, 24)[1])


def test_a_cmyk_jpeg_is_read_in_its_colours(tmp_path):
    image = Image.new("RGB", (24, 16), COLOUR).convert("CMYK")
    (tmp_path / "a.jpg").write_bytes(stored(image, "JPEG", quality=95))
    picture = read_picture(tmp_path / "a.jpg")
    np.testing.assert_allclose(picture, np.broadcast_to(COLOUR, picture.shape), atol=3)


def test_grey_pictures_become_three_equal_channels_and_transparency_is_left_out(tmp_path):
    for mode in ("L", "LA", "RGBA"):
        image = Image.new("RGB", (9, 9), (84, 84, 84)).convert(mode)
        if mode != "L":
            image.putalpha(0)
        (tmp_path / "a.png").write_bytes(stored(image, "PNG"))
        assert set(np.unique(read_picture(tmp_path / "a.png"))) == {84}


def test_pictures_of_fractions_are_refused(tmp_path, capfd):
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((9, 9, 3), np.float32))
    with pytest.raises(InputError, match=r"a\.tif: not a picture that OpenCV can decode; replace"):
        read_picture(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_an_orientation_in_a_tiff_counts_for_picture_and_mask():
    picture, mask = (Image.fromarray(array) for array in shaded(16, 24))
    files = [stored(image, "TIFF", tiffinfo={274: 6}) for image in (picture, mask)]
    decoded = decode_pair(*files, "a.tif", "b.tif")
    assert decoded[0].shape == (24, 16, 3)
    assert_together(*decoded)


def test_a_16_bit_tiff_in_which_0_is_white_is_negative_as_a_mask_alone():
    levels = np.zeros((16, 24), np.uint16)
    levels[:, :6] = 65_535
    tag = struct.pack("<HHI", 262, 3, 1)  # PhotometricInterpretation: 0 is black in 1, white in 0
    data = cv2.imencode(".tif", levels)[1].tobytes()
    data = data.replace(tag + b"\1\0", tag + b"\0\0")
    picture, mask = decode_pair(data, data, "a", "b")
    np.testing.assert_array_equal(picture[0, [0, -1], 0], [0, 255])
    np.testing.assert_array_equal(mask[0, [0, -1]], [255, 0])
    mask = decode_pair(data, data, "a", "b", MaskConvention(inverted=True))[1]
    np.testing.assert_array_equal(mask[0, [0, -1]], [0, 255])


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_the_narrowest_pairs_are_taken(shape):
    picture, mask = shaded(*shape)
    picture, mask = decode_pair(encoded(picture, ".png"), encoded(mask, ".png"), "a", "b")
    assert [array.shape for array in reduce_pair(picture, mask, 32)] == [(32, 32, 3), (32, 32, 1)]


def claims(suffix, width, height):
    """Return the bytes of a small picture that claims to be larger."""
    data = bytearray(encoded(np.zeros((16, 24, 3), np.uint8), suffix))
    place, layout = {".jpg": (data.find(b"\xff\xc0") + 5, ">HH"), ".bmp": (18, "<ii")}[suffix]
    sides = (height, width) if suffix == ".jpg" else (width, height)
    struct.pack_into(layout, data, place, *sides)
    return bytes(data)


TOO_LARGE = {
    "PNG": png(60_000, 60_000, 2, np.zeros(9, np.uint8)),
    "JPEG": claims(".jpg", 60_000, 60_000),
    "BMP": claims(".bmp", 60_000, 60_000),
    "12,000 x 9,000": png(12_000, 9_000, 0, np.zeros(9, np.uint8)),
    "one too many": png(MAX_PIXELS // 1000, 1001, 0, np.zeros(9, np.uint8)),
}


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_many_pixels_are_refused_with_the_limit(data):
    with pytest.raises(InputError, match="a: has too many pixels; the limit is 24,000,000: reduce"):
        decode_image(data, "a", cv2.IMREAD_COLOR_RGB)


WHOLE = png(3, 2, 0, np.zeros((2, 4), np.uint8))
DAMAGED_PNGS = {
    "a chunk of 4 GB": WHOLE.replace(b"\0\0\0\x0bIDAT", b"\xff\xff\0\0IDAT"),
    "cut off in a chunk": WHOLE[:50],
    "cut off behind a chunk": WHOLE[:33],
    "cut off in the end chunk": WHOLE[:-1],
    "its beginning alone": WHOLE[:8],
}


@pytest.mark.parametrize("data", DAMAGED_PNGS.values(), ids=DAMAGED_PNGS)
def test_a_png_that_lacks_what_its_chunks_claim_is_not_given_to_the_decoder(data, monkeypatch):
    """It would take the memory that they claim."""
    assert data != WHOLE
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(InputError, match="a: a PNG that is cut off or damaged; replace or remove"):
        decode_image(data, "a", cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_of_very_many_scans_is_refused_before_it_takes_minutes(progressive):
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", shaded(64, 64)[0], flags)[1].tobytes()
    assert decode_image(data, "a", cv2.IMREAD_COLOR_RGB).shape == (64, 64, 3)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(InputError, match="a: a JPEG of more than 50 scans, which take too long"):
        decode_image(data[:-2] + 50 * last + data[-2:], "a", cv2.IMREAD_COLOR_RGB)


def test_what_follows_a_whole_png_is_left_alone():
    for data in (WHOLE, WHOLE + b"more"):
        assert decode_image(data, "a", cv2.IMREAD_COLOR_RGB).shape == (2, 3, 3)


@pytest.mark.parametrize(("suffix", "at_once"), [(".jp2", 1), (".png", 2)])
def test_jpeg_2000_which_takes_most_memory_is_decoded_one_at_a_time(suffix, at_once, monkeypatch):
    data, inside, most = encoded(shaded(64, 64)[0], suffix), [], []

    def slow(*_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.1)
        inside.pop()
        return np.zeros((64, 64), np.uint8)

    monkeypatch.setattr(cv2, "imdecode", slow)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: decode_image(data, "a", cv2.IMREAD_GRAYSCALE), range(4)))
    assert max(most) == at_once


@pytest.mark.parametrize("script", ["data_preprocessing", "evaluation"])
def test_no_script_loads_opencv_before_the_limit_is_set(script, tmp_path):
    """The limit is read when cv2 is loaded: a script that imports cv2 before utils has none."""
    (tmp_path / "a.png").write_bytes(png(20_000, 20_000, 2, np.zeros(9, np.uint8)))
    code = f"""
import resource, sys, {script}
from utils.command import InputError
from utils.data.pictures import cv2, decode_image, read_bytes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(read_bytes(sys.argv[1]), sys.argv[1], cv2.IMREAD_COLOR_RGB)
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    line = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    message, megabytes = done.stdout.splitlines()
    assert "a.png: has too many pixels; the limit is 24,000,000" in message
    assert int(megabytes) < 20


def test_a_jpeg_that_is_half_grey_is_refused_and_its_decoder_silent(tmp_path, capfd):
    picture = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    data, path = encoded(picture, ".jpg"), tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read_picture(path).shape == (90, 90, 3)
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(InputError, match=r"a\.jpg: a damaged JPEG, only a part of it is there"):
        read_picture(path)
    assert capfd.readouterr().err == ""


# Masks of other conventions

LABELS = np.repeat(np.uint8([[0, 38, 255, 1]]), 4, axis=0)
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)
COLOURS = np.repeat(np.uint8([[RED, BLUE, BLACK, RED]]), 4, axis=0)


def read_mask(mask, convention, suffix=".png", size=None):
    """Return one line of a mask that is read with a picture, of its own size or another."""
    picture = np.zeros((*(size or mask.shape[:2]), 3), np.uint8)
    mask = mask[..., ::-1] if mask.ndim == 3 else mask
    files = encoded(picture, ".png"), encoded(np.ascontiguousarray(mask), suffix)
    return decode_pair(*files, "a.png", "b.png", convention)[1][0].tolist()


@pytest.mark.parametrize(
    ("mask", "convention", "line"),
    [
        (LABELS, MaskConvention(values=(38,)), [0, 255, 0, 0]),
        (LABELS, MaskConvention(values=(38,), inverted=True), [255, 0, 255, 255]),
        (LABELS, MaskConvention(values=(0,), inverted=True), [0, 255, 255, 255]),
        (LABELS, MaskConvention(values=(7,)), [0, 0, 0, 0]),
        (LABELS.astype(np.uint16) * 256, MaskConvention(values=(38 * 256,)), [0, 255, 0, 0]),
        (np.dstack([LABELS] * 3), MaskConvention(values=(38,)), [0, 255, 0, 0]),
        (COLOURS, MaskConvention(values=(RED,)), [255, 0, 0, 255]),
        (COLOURS, MaskConvention(values=(BLACK,), inverted=True), [255, 255, 0, 255]),
        (LABELS, MaskConvention(values=((38, 38, 38),)), [0, 255, 0, 0]),
        (np.uint8([[0, 255]]), MaskConvention(inverted=True), [255, 0]),
    ],
)
def test_a_value_a_colour_or_the_rest_is_polyp(mask, convention, line):
    assert read_mask(mask, convention) == line


def test_a_colour_of_a_palette_is_polyp():
    data = stored(Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")
    picture = encoded(np.zeros((4, 4, 3), np.uint8), ".png")
    mask = decode_pair(picture, data, "a", "b", MaskConvention(values=(RED,)))[1]
    assert mask[0].tolist() == [255, 0, 0, 255]
    with pytest.raises(
        InputError,
        match=r"255,0,0 \(number 0, 50%\), 0,0,0 \(number 2, 25%\), .*, or its number in",
    ):
        decode_pair(picture, data, "a", "b", MaskConvention(values=(38,)))


def test_masks_of_another_size_are_brought_to_the_pictures_by_their_nearest_pixels():
    mask, resize = np.uint8([[0, 255]]), MaskConvention(resize=True)
    assert read_mask(mask, resize, size=(3, 6)) == [0, 0, 0, 255, 255, 255]
    larger = np.repeat(np.repeat(mask, 3, axis=0), 3, axis=1)
    assert read_mask(larger, resize, size=(1, 2)) == [0, 255]
    halved = np.zeros((264, 311), np.uint8)
    assert len(read_mask(halved, resize, size=(529, 622))) == 622
    with pytest.raises(InputError, match=r"is 622 x 529, its mask b\.png 311 x 264; they must"):
        read_mask(halved, MaskConvention(), size=(529, 622))
    with pytest.raises(InputError, match=r"3 x 4, its mask b\.png 2 x 1; they must be of one"):
        read_mask(mask, resize, size=(4, 3))


@pytest.mark.parametrize(
    ("mask", "convention", "flag"),
    [
        (LABELS, MaskConvention(), "--mask-value V, or from V on, --mask-threshold V"),
        (COLOURS, MaskConvention(), "--mask-value R,G,B"),
        (COLOURS, MaskConvention(values=(76,)), "--mask-value R,G,B"),
        (np.zeros((2, 3), np.uint8), MaskConvention(), "--mask-resize"),
    ],
)
def test_the_line_that_refuses_a_mask_names_the_flag_that_reads_it(mask, convention, flag):
    size = (4, 6) if flag == "--mask-resize" else None
    with pytest.raises(InputError, match=f"b.png.*{flag}$"):
        read_mask(mask, convention, size=size)


def test_grey_noise_in_a_mask_of_three_channels_is_no_colour_and_few_colours_are():
    """A JPEG mask in RGB that was saved anew as PNG; and labels, 1 and 2, in the red channel."""
    noise = np.random.default_rng(0).integers(-6, 7, (*LARGE_MASK.shape, 3))
    mask = np.clip(jpeg(LARGE_MASK, 90)[..., None] + noise, 0, 255).astype(np.uint8)
    binary = decode_pair(encoded(np.zeros_like(mask), ".png"), encoded(mask, ".png"), "a", "b")[1]
    np.testing.assert_array_equal(binary, np.where(LARGE_MASK, 255, 0))
    labels = np.zeros_like(mask)
    labels[..., 2], labels[:5] = LARGE_MASK // 255, 255
    for coloured in (labels, np.where(mask > 128, np.uint8(np.arange(120, 123)), 0)):
        with pytest.raises(InputError, match="b: mask is in colour"):
            decode_pair(encoded(mask, ".png"), encoded(coloured, ".png"), "a", "b")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_picture_of_12_bits_in_16_is_refused_for_it_would_be_black(suffix):
    picture = shaded(40, 50)[0].astype(np.uint16)
    dark, bright = encoded(picture * 16, suffix), encoded(picture * 257, suffix)
    with pytest.raises(InputError, match=r"a: its values end at 4,\d{3} of 65,535, so it would"):
        decode_image(dark, "a", cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(
        decode_image(bright, "a", cv2.IMREAD_COLOR_RGB)[..., ::-1], picture
    )
    black = encoded(np.zeros_like(picture), suffix)
    assert not decode_image(black, "a", cv2.IMREAD_COLOR_RGB).any()


GREEN = (0, 255, 0)
BKAI = np.zeros((200, 300, 3), np.uint8)  # red and green, which touch
cv2.circle(BKAI, (100, 100), 60, RED, -1)
cv2.circle(BKAI, (170, 110), 50, GREEN, -1)


@pytest.mark.parametrize("values", [(RED,), (GREEN,), (RED, GREEN)])
def test_colours_in_a_lossy_format_are_the_nearest_of_the_named_black_and_white(values):
    data = encoded(BKAI, ".png"), encoded(BKAI[..., ::-1], ".jpg")
    mask = decode_pair(*data, "a", "b", MaskConvention(values=values))[1]
    wanted = np.any([(value == BKAI).all(axis=2) for value in values], axis=0)
    assert ((mask > 0) != wanted).mean() < 0.01


def test_a_value_in_a_lossy_format_is_the_nearest_of_it_black_and_white():
    labels = np.repeat(np.repeat(np.uint8([[0, 90, 255, 0]]), 32, axis=0), 16, axis=1)
    assert read_mask(labels, MaskConvention(values=(90,)), ".jpg")[8::16] == [0, 255, 0, 0]


def test_a_class_near_the_named_one_in_a_lossy_format_is_refused_and_named():
    labels = np.repeat(np.repeat(np.uint8([[0, 90, 150, 0]]), 32, axis=0), 16, axis=1)
    with pytest.raises(InputError, match=r"b\.png: mask has 0 .*90 .*150 .* or store PNG"):
        read_mask(labels, MaskConvention(values=(90,)), ".jpg")
    assert read_mask(labels, MaskConvention(values=(90, 150)), ".jpg")[8::16] == [0, 255, 255, 0]


def test_coloured_masks_in_a_lossy_format_are_refused_with_their_colours():
    with pytest.raises(InputError, match=r"in colour, it has 0,0,0 .*%\), 25\d,0,0 .* 0,255,\d "):
        read_mask(BKAI, PLAIN, ".jpg")
    with pytest.raises(InputError, match="is in colour"):
        read_mask(BKAI, MaskConvention(threshold=100), ".jpg")


def test_a_number_of_the_palette_is_polyp():
    image = Image.fromarray(np.uint8([[0, 1, 2, 1]] * 4), "P")
    image.putpalette([*BLACK, 128, 0, 0, 0, 128, 0])
    picture = encoded(np.zeros((4, 4, 3), np.uint8), ".png")
    for values, line in (((1,), [0, 255, 0, 255]), ((1, 2), [0, 255, 255, 255])):
        mask = decode_pair(picture, stored(image, "PNG"), "a", "b", MaskConvention(values=values))[
            1
        ]
        assert mask[0].tolist() == line
    image.putpalette([*BLACK, 128, 0, 0, 0, 128, 0, *BLACK * 9])  # filled up, as some programs do
    with pytest.raises(InputError, match=r" 128,0,0 \(number 1, 50%\), 0,0,0 \(number 0, 25%\)"):
        decode_pair(picture, stored(image, "PNG"), "a", "b")


# Grey edges

LARGE_MASK = cv2.circle(np.zeros((300, 400), np.uint8), (180, 150), 80, 255, -1)
EDGES = {
    **{f"box {k}": cv2.blur(LARGE_MASK, (k, k)) for k in (3, 5, 9, 15)},
    "Gaussian": cv2.GaussianBlur(LARGE_MASK, (0, 0), 4),
    "resized": cv2.resize(cv2.resize(LARGE_MASK, (150, 113)), (400, 300)),
    "JPEG of quality 50": jpeg(LARGE_MASK, 50),
    "16 bits": cv2.blur(LARGE_MASK, (5, 5)).astype(np.uint16) * 257,
    "a blurred JPEG": jpeg(cv2.blur(LARGE_MASK, (9, 9)), 90),
}


@pytest.mark.parametrize("values", [(), (255,), (65535,)])
@pytest.mark.parametrize("kind", EDGES)
def test_grey_edges_are_halved_and_their_share_told(kind, values):
    """A mask of 8 bits has no 65535: its pixels are all nearer to 0 or 255."""
    mask, told = EDGES[kind], []
    if values and (values[0] > 255) != (mask.dtype == np.uint16):
        return
    convention = MaskConvention(values=values)
    binary = binary_mask(mask, "a", False, convention, lambda *amount: told.append(amount))
    assert (binary != LARGE_MASK).mean() < 0.005
    assert abs((binary > 0).sum() / (LARGE_MASK > 0).sum() - 1) < 0.01  # no polyp shrinks
    level = mask // 257 if mask.dtype == np.uint16 else mask
    np.testing.assert_array_equal(binary > 0, level >= 128)
    assert told == [("grey", ((level > 0) & (level < 255)).mean())]


def test_clinicdb_is_taken_as_it_comes():
    """Of its masks, 0.1 % of the pixels lie between 8 and 112."""
    mask, random = LARGE_MASK.copy(), np.random.default_rng(0)
    edge = np.argwhere(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0)
    for row, column in edge[random.permutation(len(edge))[:120]]:
        mask[row, column] = random.integers(1, 15) * 8
    np.testing.assert_array_equal(binary_mask(mask, "a", False) > 0, mask == 255)


THREE_CLASSES = {
    "a small class": (1, 10, lambda mask: mask),
    "in the middle": (128, 40, lambda mask: mask),
    "beside white": (254, 40, lambda mask: mask),
    "blurred": (128, 60, lambda mask: cv2.blur(mask, (5, 5))),
    "resized": (90, 60, lambda mask: cv2.resize(mask, (200, 150))),
    "from JPEG": (90, 40, lambda mask: jpeg(mask, 75)),
    "a line": (128, -2, lambda mask: mask),
}


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("kind", THREE_CLASSES)
def test_three_clusters_are_three_classes(kind, lossy):
    level, side, spoil = THREE_CLASSES[kind]
    if lossy and not 48 < level < 207:
        return  # noise
    mask = LARGE_MASK.copy()
    if side > 0:
        mask[5 : 5 + side, 5 : 5 + side] = level
    else:
        cv2.circle(mask, (180, 150), 80, level, 2)
    with pytest.raises(InputError, match="a: mask is not two-valued, it has 0"):
        binary_mask(spoil(mask), "a", lossy)


def test_from_a_threshold_on_it_is_polyp():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for threshold in (1, 100, 255):
        binary = binary_mask(ramp, "a", False, MaskConvention(threshold=threshold))
        np.testing.assert_array_equal(binary, np.where(ramp >= threshold, 255, 0))


def test_masks_of_another_shape_are_stretched_if_told_and_that_is_told():
    mask, picture = encoded(LARGE_MASK, ".png"), encoded(np.zeros((300, 300, 3), np.uint8), ".png")
    for resize in (False, True):
        with pytest.raises(InputError, match=r"300 x 300, its mask b 400 x 300.*resize stretch$"):
            decode_pair(picture, mask, "a", "b", MaskConvention(resize=resize))
    told, stretch = [], MaskConvention(resize="stretch")
    stretched = decode_pair(picture, mask, "a", "b", stretch, lambda *given: told.append(given))[1]
    assert told == [("stretched", pytest.approx(1 / 3))]
    wanted = cv2.ellipse(np.zeros((300, 300), np.uint8), (135, 150), (60, 80), 0, 0, 360, 255, -1)
    assert (stretched != wanted).mean() < 0.01
