"""One picture for each of the largest lesions: its largest axial slice in two windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .preview import LUNG_WINDOW
from .wording import size

MOST = 10
"""Largest number of lesions that are shown."""
MEDIASTINAL_WINDOW = (-160.0, 240.0)  # level 40, width 400 HU
_OUTLINE, _BOX = (255, 159, 28), (230, 0, 230)  # seen on air and on bone
_GREYS = 254  # of 256 colours; two are for outline and box
_ARM = 0.25  # of a side of the box: its corners
_GAP = 4  # pixels between lesion and box


@dataclass(frozen=True)
class LesionPicture:
    """A lesion as the page shows it.

    Attributes:
        caption: which lesion, how large, where.
        views: for each window its name and a PNG at the scan's resolution.
    """

    caption: str
    views: Mapping[str, bytes]


def draw_lesions(
    hu: NDArray[Any], mask: NDArray[Any], measures: Mapping[str, Any], spacing: tuple[float, ...] | None
) -> list[LesionPicture]:
    """Draw the largest slice of each of the `MOST` largest lesions, with a box at the lesion.

    Args:
        hu: (X, Y, Z) in HU, in LPS order.
        mask: infection wherever above 0, of the same shape; outlined.
        measures: of `measure_infection`, for the same mask.
        spacing: voxel size along x, y, z in mm; None if unknown: voxels are shown square.

    Returns:
        Pictures in the order of the lesions: a lung window, and a mediastinal one where the values
        are HU.
    """
    windows = {"lung window": LUNG_WINDOW}
    if "reason" not in measures["density"]:
        windows["mediastinal window"] = MEDIASTINAL_WINDOW
    pictures = []
    for number, lesion in enumerate(measures["lesions"]["lesions"][:MOST], start=1):
        z = lesion["largest_slice_from_inferior"] - 1
        marked = mask[:, :, z] > 0
        views = {
            name: _png(_draw(hu[:, :, z], marked, lesion["box_index"], window), spacing)
            for name, window in windows.items()
        }
        pictures.append(LesionPicture(_caption(number, lesion, mask.shape[2]), views))
    return pictures


def _caption(number: int, lesion: Mapping[str, Any], depth: int) -> str:
    words = [f"Lesion {number}: {size(lesion, 'infection', 'volume_ml')}"]
    words += [lesion["side"]] if lesion["side"] else []
    if depth > 1:
        words.append(f"largest in slice {lesion['largest_slice_from_superior']} of {depth} from the head")
    for key in ("instance_number", "frame_number"):
        words += [f"{key.replace('_', ' ')} {lesion[key]}"] if key in lesion else []
    if position := lesion.get("centroid_mm"):
        words.append("centre at " + position_in_words(position))
    return ", ".join(words)


def position_in_words(position: tuple[float, float, float]) -> str:
    """Write a position in the patient's coordinates, mm towards left, posterior, superior.

    >>> position_in_words((-84.24, 31.0, -120.5))
    'R 84.2, P 31.0, I 120.5 mm'
    """
    letters = [letter[value < 0] for letter, value in zip(("LR", "PA", "SI"), position, strict=True)]
    return ", ".join(f"{letter} {abs(value):.1f}" for letter, value in zip(letters, position, strict=True)) + " mm"


def _draw(hu: NDArray[Any], marked: NDArray[np.bool_], box: Any, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return colour numbers (Y, X): greys, then the outline around the marks, then the box."""
    low, high = window
    levels = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * (_GREYS - 1)
    image = levels.round().astype(np.uint8)
    image[ndimage.binary_dilation(marked) & ~marked] = _GREYS
    (x0, x1), (y0, y1) = (
        (max(first - _GAP, 0), min(last + _GAP, length - 1))
        for (first, last), length in zip(box[:2], hu.shape, strict=True)
    )
    for start, stop, line in ((x0, x1, "x"), (y0, y1, "y")):
        arm = max(int(_ARM * (stop - start)), 1)
        for part in (slice(start, start + arm + 1), slice(max(stop - arm, 0), stop + 1)):
            for other in (y0, y1) if line == "x" else (x0, x1):
                image[(part, other) if line == "x" else (other, part)] = _GREYS + 1
    return np.ascontiguousarray(image.T)


def _png(image: NDArray[np.uint8], spacing: tuple[float, ...] | None) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    greys = np.linspace(0, 255, _GREYS).round().astype(int).repeat(3)
    picture.putpalette([*greys.tolist(), *_OUTLINE, *_BOX])
    if spacing is not None and abs(spacing[1] / spacing[0] - 1) > 0.01:  # the page shows pixels square
        stretched = max(round(image.shape[0] * spacing[1] / spacing[0]), 1)
        picture = picture.resize((image.shape[1], stretched), Image.Resampling.NEAREST)
    file = BytesIO()
    picture.save(file, "PNG", compress_level=6)
    return file.getvalue()
