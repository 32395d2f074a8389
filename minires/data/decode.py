"""Decodes an image file to an upright picture with 8 bits a channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from minires._atomic import NotRegularError, open_regular
from minires.data.errors import DataFileError

# Other formats of Pillow start other programs (EPS: Ghostscript) or contain no photographs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")

_ORIENTATION = 0x0112  # EXIF tag: rotation of the camera
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: Path, grey: bool = False) -> Image.Image:
    """The picture in a file as RGB, or as grey levels (ITU-R 601 luma).

    The EXIF orientation is applied, as in every viewer, because networks are trained on upright pictures (torchvision
    ignores it).  An animation gives its first frame.  Transparency is dropped without changing the colours.  16 bits a
    channel are reduced to the upper 8.

    Raises DataFileError that names the file: for a format outside `FORMATS`, a truncated or broken file, more pixels
    than Pillow's limit, numbers of unknown range, and any FIFO, socket or device.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as opened:
            opened.load()
            turn = _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1))
            image = _eight_bits(opened)
            image = image if turn is None else image.transpose(turn)
            return image.convert("L") if grey and image.mode != "L" else image if grey else image.convert("RGB")
    except UnidentifiedImageError:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataFileError(f"{path}: cannot be decoded: no valid {known}") from None
    except NotRegularError as error:
        raise DataFileError(f"{path}: {error.strerror}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many types of error for broken bytes
        raise DataFileError(f"{path}: cannot be decoded: {str(error) or type(error).__name__}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip the values at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"its numbers reach from {values.min()} to {values.max()}; a picture has at most 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its numbers are floating, of unknown range")
    if "transparency" in image.info:  # Pillow converts them in two steps only
        return image.convert("RGBA")
    return image
