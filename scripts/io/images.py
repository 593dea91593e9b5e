"""8-bit pictures of one slice: PNG, JPG, BMP."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..errors import UserError
from .limits import check_size
from .volume import LPS_TO_RAS, Note, Scan

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_FORMATS = ("PNG", "JPEG", "BMP")  # others of PIL start programs, or read what is no picture of a slice
_DAMAGED = (
    *(UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, TypeError, LookupError),
    *(OverflowError, MemoryError, AttributeError, RuntimeError, struct.error, zlib.error),
)
_GREY_TOLERANCE = 16  # levels between channels that JPG compression may leave in a grey picture


def is_picture(path: str | Path) -> bool:
    """Whether a file is an 8-bit picture by its name, rather than a scan."""
    return str(path).lower().endswith(PICTURE_SUFFIXES)


def grey_values(picture: Image.Image) -> Image.Image:
    """Read an 8-bit picture as grey (PIL converter); UserError for more bits, which PIL clips."""
    turn_upright(picture)
    if picture.mode.startswith(("I", "F")):
        name = getattr(picture, "filename", "picture")
        raise UserError(f"{name}: more than 8 bits a pixel (mode {picture.mode}); expected: 8-bit pictures, or NIfTI")
    return picture.convert("L")


def label_values(picture: Image.Image) -> Image.Image:
    """Read the codes of a label image: palette indices as they are, colour as grey."""
    turn_upright(picture)
    return picture if picture.mode in ("P", "L", "1", "I;16") else picture.convert("L")


def turn_upright(picture: Image.Image) -> int:
    """Turn a picture in place as its EXIF orientation says, and as every viewer shows it.

    Returns:
        The orientation, from 2 to 8 (EXIF 2.32, tag 274); 1 for a picture that was not turned.
    """
    try:
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)  # PNG's own decodes
    except _DAMAGED:
        return 1
    if orientation not in range(2, 9):
        return 1
    ImageOps.exif_transpose(picture, in_place=True)
    return int(orientation)


@contextmanager
def open_picture(path: Path) -> Iterator[tuple[Image.Image, int]]:
    """Open a picture for a block, in which PIL's errors for damaged files become UserError.

    A picture of more pixels than the limits is refused before it is decoded. With it comes what
    `turn_upright` returned.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # there is a limit of its own
            opened = Image.open(path, formats=_FORMATS)
        with opened as picture:
            check_size(path, picture.size)
            yield picture, turn_upright(picture)
    except _DAMAGED as error:
        found = f"{path.stat().st_size} bytes, no whole picture ({' '.join(str(error).split())})"
        raise UserError(f"{path}: {found}; expected: {', '.join(PICTURE_SUFFIXES)}") from None


def picture_size(path: Path) -> tuple[int, int]:
    """Return (width, height) without decoding, but of a picture to be turned."""
    with open_picture(path) as (picture, _):
        return picture.size


def read_codes(path: Path) -> NDArray[np.generic]:
    """Read a label picture (height, width), grey or palette indices; UserError if in colour."""
    with open_picture(path) as (picture, _):
        values = np.asarray(picture)
    if values.ndim == 2:
        return values
    grey, colours = values[..., :1], values.shape[-1] - (values.shape[-1] in (2, 4))  # without alpha
    if (values[..., :colours] != grey).any():
        raise UserError(f"{path}: a picture in colour; expected: a grey picture")
    return grey[..., 0]


def read_picture(path: Path) -> Scan:
    """Read a whole 8-bit picture, else UserError, as one slice (columns, rows, 1) of greys."""
    with open_picture(path) as (picture, orientation):
        if (frames := getattr(picture, "n_frames", 1)) > 1:
            raise UserError(f"{path}: {frames} frames; expected: one slice a picture")
        values = np.asarray(grey_values(picture)).T[..., np.newaxis]
        facts = {"format": str(picture.format), "stored_mode": picture.mode}
        found: dict[str, Any] = {"facts": facts, "notes": _notes(picture, orientation)}
    return Scan("", path, "picture", values, LPS_TO_RAS.copy(), voxel_size_known=False, **found)


def _notes(picture: Image.Image, orientation: int) -> list[Note]:
    display = "a picture holds no orientation and no voxel size; taken for a radiological display (right at the left)"
    notes = [Note("picture_orientation", display, "assumption")]
    if orientation != 1:
        text = f"the picture was turned as viewers show it (EXIF orientation {orientation}); its mask lies as they do"
        notes.append(Note("picture_turned", text, "repair"))
    if picture.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
        return notes
    channels = np.asarray(picture.convert("RGB"))
    coloured = np.ptp(channels, axis=2) > _GREY_TOLERANCE
    if coloured.any():
        text = f"{coloured.mean():.1%} of the pixels are coloured (marks or text?); they were turned to grey"
        notes.append(Note("coloured", text, "warning"))
    return notes
