"""From a file to a picture of 8 bits a channel, upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from minires._atomic import NotRegularError, open_regular
from minires.data.dataset import DataFileError

# What may come in.  Other formats that Pillow knows start other programs (EPS: Ghostscript) or hold no photographs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")

_ORIENTATION = 0x0112  # EXIF: how the camera was held
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

    A picture that its EXIF orientation turns is turned, as every viewer shows it: a network trained on upright pictures
    knows no others.  (torchvision leaves it lying.)  Of an animation it is the first frame; transparency is dropped,
    the colours under it stay; of 16 bits a channel the upper 8 are kept.

    Raises DataFileError that names the file: what is none of `FORMATS`, what cannot be decoded to its end, what has
    more pixels than Pillow deems safe, what holds numbers of unknown range, and any FIFO, socket or device.
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
        raise DataFileError(f"{path}: cannot be decoded: it is no {known} that Pillow knows") from None
    except NotRegularError as error:
        raise DataFileError(f"{path}: {error.strerror}") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder trips over in broken bytes: it raises more than OSError
        told = str(error) or type(error).__name__
        raise DataFileError(f"{path}: cannot be decoded: {told}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # of which convert() would cut off all above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"its numbers reach from {values.min()} to {values.max()}; a picture has at most 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its numbers are floating, of unknown range")
    if "transparency" in image.info:  # Pillow wants these converted in two steps
        return image.convert("RGBA")
    return image
