"""From a file to what a network sees: geometry and numbers against plain loops, every kind of file, and broken ones."""

from __future__ import annotations

import re
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from minires.data import DataFileError, FolderImages, Preprocessing
from minires.data.decode import decode
from minires.data.preprocess import margin


def noise(rng, width, height, channels=3):
    return rng.integers(0, 256, (height, width, channels)).astype(np.uint8)


def naive(picture, resize, crop, interpolation):
    """torchvision's Resize, CenterCrop, ToTensor and Normalize of one RGB picture, pixel by pixel."""
    w, h = picture.size
    short, long = min(w, h), max(w, h)
    if short != resize:
        other = int(Fraction(resize * long, short))  # cut down, not rounded
        picture = picture.resize((resize, other) if w <= h else (other, resize), interpolation)
    pixels = np.asarray(picture)
    h, w = pixels.shape[:2]
    out = np.zeros((3, crop, crop), np.float32)
    # A border that puts a picture smaller than the crop in the middle, the odd pixel behind it.
    border = [max(0, (crop - length) // 2) for length in (h, w)]
    start = [round(max(0, length - crop) / 2) for length in (h, w)]  # Python's round: halves to the even number
    for y in range(crop):
        for x in range(crop):
            i, j = y - border[0] + start[0], x - border[1] + start[1]
            inside = 0 <= i < h and 0 <= j < w
            for c, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
                value = np.float32(pixels[i, j, c] if inside else 0) / np.float32(255)
                out[c, y, x] = (value - np.float32(mean)) / np.float32(std)
    return out


@pytest.mark.parametrize(
    ("width", "height", "resize", "crop"),
    [
        (300, 201, 32, 28),  # 32·300/201 = 47.8: rounded it would be one column more
        (201, 300, 32, 28),
        (33, 47, 33, 28),  # not scaled: margins of 5 and 19, both odd
        (47, 33, 33, 30),  # a margin of 17: 8.5 is rounded to 8, 3/2 to 2
        (1, 1, 16, 14),
        (1, 9, 3, 2),
        (9, 1, 3, 2),
        (20, 31, 20, 24),  # narrower than the crop
        (31, 20, 19, 24),  # by an odd number of rows, with an odd number of columns to spare
        (6, 5, 5, 9),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_numbers(tmp_path, rng, width, height, resize, crop, interpolation):
    """To the last bit.  That the loop here is what torchvision does was found with torchvision itself."""
    Image.fromarray(noise(rng, width, height)).save(tmp_path / "x.png")
    found = Preprocessing(resize, crop, interpolation=interpolation)(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        expected = naive(picture, resize, crop, getattr(Image.Resampling, interpolation.upper()))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("width", "height", "checksum"),
    [
        (300, 201, 0x3E382CAC),
        (201, 300, 0x5DDC3077),
        (256, 257, 0xC2CB5457),
        (31, 90, 0xA2169CDC),
        (1, 1, 0xE3565AE2),
        (333, 500, 0x5565A5C4),
    ],
)
def test_the_standard_preprocessing_is_torchvisions(tmp_path, width, height, checksum):
    """CRC-32 that torchvision 0.29 gave, with Pillow 13, for Resize(256), CenterCrop(224), ToTensor, Normalize."""
    y, x = np.mgrid[:height, :width]
    Image.fromarray(np.stack([x * 7 + y, x ^ y, x * y], 2).astype(np.uint8)).save(tmp_path / "x.png")
    assert zlib.crc32(np.ascontiguousarray(Preprocessing()(tmp_path / "x.png"))) == checksum


def test_the_margin_is_rounded():
    assert [margin(size) for size in (224, 32, 28, 112)] == [256, 37, 32, 128]  # 32 · 256/224 = 36.6


@pytest.mark.parametrize("size", [(300, 201), (201, 300), (256, 257), (7, 90)])
def test_evaluation_on_a_folder_sees_the_same(tmp_path, rng, size):
    Image.fromarray(noise(rng, *size)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(FolderImages([tmp_path / "x.png"]).read(0), Preprocessing().cut(tmp_path / "x.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    """Stored as EXIF defines each orientation: on which side of the upright picture row 0 and column 0 lie."""
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13
    stored = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: upright[:, ::-1].transpose(1, 0, 2),  # right, top
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: upright[::-1].transpose(1, 0, 2),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(
        path, exif=exif, **({"lossless": True} if suffix == "webp" else {})
    )
    np.testing.assert_array_equal(np.asarray(decode(path)), upright)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    grey = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(grey).save(tmp_path / f"x.{suffix}")
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / f"x.{suffix}"))[0, :, 0], [0, 0, 1, 128, 255])
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "i.tif")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "i.tif"))[0, :, 2], [0, 0, 1, 128, 255])


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"x.{suffix}"
        frames[0].save(
            path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {})
        )
        np.testing.assert_array_equal(np.asarray(decode(path))[3, 4], [255, 0, 0])


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("P", (200, 30, 60), (200, 30, 60)),
        ("I;16", 0x8040, (0x80, 0x80, 0x80)),
        ("I;16", 0x0140, (1, 1, 1)),
    ],
)
def test_colours_of_every_mode(tmp_path, mode, colour, seen):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((40, 50), colour, np.uint16)).save(path)
    elif mode == "P":
        Image.new("RGB", (50, 40), colour).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    else:
        Image.new(mode, (50, 40), colour).save(path)
    array = FolderImages([path], 8).read(0)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, np.broadcast_to(np.array(seen, np.uint8), (8, 8, 3)))


def test_a_palette_with_transparent_colours(tmp_path):
    """Pillow warns where such a palette is converted at once; warnings are errors here."""
    image = Image.new("RGB", (50, 40), (200, 30, 60)).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "x.png", transparency=b"\x80\x40")
    with Image.open(tmp_path / "x.png") as written:
        assert isinstance(written.info["transparency"], bytes)
    np.testing.assert_array_equal(FolderImages([tmp_path / "x.png"], 8).read(0)[3, 3], [200, 30, 60])


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "deep.png"])
def test_pictures_cut_anywhere(tmp_path, rng, name):
    path = tmp_path / name
    if name == "deep.png":
        Image.fromarray(rng.integers(0, 65536, (40, 50)).astype(np.uint16)).save(path)
    else:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole) - 20, 97)]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataFileError, match="cannot be decoded") as failure:
            FolderImages([path], 8).read(0)
        assert str(path) in str(failure.value)


def test_grey(tmp_path, rng):
    pixels = noise(rng, 8, 8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = Preprocessing(8, 8, mean=(0.5,), std=(0.25,), grey=True)(tmp_path / "x.png")
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert found.shape == (1, 8, 8)
    assert np.abs(found[0] - (luma / 255 - 0.5) / 0.25).max() <= 1 / 255 / 0.25  # a grey level is rounded
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "grey.png", grey=True)), pixels[:, :, 0])


def test_a_mean_image(tmp_path, rng):
    pixels, mean = noise(rng, 6, 6), rng.random((6, 6, 3), np.float32)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = Preprocessing(6, 6, mean=mean, std=(1, 1, 1))(tmp_path / "x.png")
    np.testing.assert_array_equal(found, (pixels.astype(np.float32) / np.float32(255) - mean).transpose(2, 0, 1))


def test_the_repr():
    assert str(Preprocessing()) == ("shorter side 256, centre 224×224, mean 0.485 0.456 0.406, std 0.229 0.224 0.225")
    grey = Preprocessing(8, 8, np.full((8, 8, 1), 0.25, np.float32), (1,), "bicubic", grey=True)
    assert str(grey) == "in grey, shorter side 8 (bicubic), centre 8×8, minus the mean image"
    assert grey.to_json() == {
        "resize": 8,
        "crop": 8,
        "mean": [0.25],
        "std": [1.0],
        "interpolation": "bicubic",
        "grey": True,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 0}, "resize must be at least 1, got 0"),
        ({"resize": 1e3}, "resize must be an integer"),
        ({"crop": 10**6}, "crop must be at most 16384"),
        ({"mean": (0.5,)}, "mean must be 3 numbers, one a channel, got (0.5,)"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean must be finite, got nan"),
        ({"mean": 0.5}, "mean must be 3 numbers"),
        ({"mean": "abc"}, "mean must be 3 numbers"),
        ({"mean": np.zeros((8, 8, 3), np.float32)}, "crop and channels must match the mean image, 8×8×3"),
        ({"std": (1, 0, 1)}, "std must be above 0, got 0"),
        ({"std": (1, 1, 1), "grey": True}, "mean must be 1 number, one a channel"),
        ({"interpolation": "linear"}, "interpolation must be one of"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        Preprocessing(**changes)


def test_files_that_are_not_pictures_are_named(tmp_path, rng):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(noise(rng, 90, 70)).save(whole)
    broken = {
        "empty.jpg": b"",
        "text.png": b"not an image",
        "cut.jpg": whole.read_bytes()[:-200],
        "head.jpg": whole.read_bytes()[:40],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(noise(rng, 9, 7)).save(tmp_path / "script.eps")
    with pytest.raises(DataFileError, match="no valid JPEG, "):  # and Pillow did not hand it to Ghostscript
        decode(tmp_path / "script.eps")
    Image.fromarray(rng.random((9, 7)).astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.array([[0, 1 << 20]], np.int32)).save(tmp_path / "wide.tif")
    (tmp_path / "folder.png").mkdir()
    for name in (*broken, "script.eps", "float.tif", "wide.tif", "folder.png", "nowhere.png"):
        with pytest.raises(
            DataFileError, match=rf"{name}: (cannot be decoded: |is a folder, not a regular file)"
        ) as caught:
            Preprocessing(8, 8)(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.new("L", (300, 200)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataFileError, match=r"bomb.png: cannot be decoded: .*decompression bomb"):
        decode(tmp_path / "bomb.png")


def test_too_thin(tmp_path):
    Image.new("L", (1, 30_000)).save(tmp_path / "thin.png")
    with pytest.raises(DataFileError, match="1×30000 pixels are too thin to scale the shorter side to 256"):
        Preprocessing()(tmp_path / "thin.png")
    with pytest.raises(DataFileError, match="too thin"):
        FolderImages([tmp_path / "thin.png"]).read(0)
