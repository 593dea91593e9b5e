"""The report's pictures as single images that need no page: with caption and directions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .lesion_pictures import LesionPicture

USE = "Outlined by AI, research use only."
_LEAST_WIDTH = 512  # pixels of a view; smaller ones are enlarged by a whole number
_MARGIN, _LINE = 10, 24  # pixels around a caption, from line to line
_LETTER_PX, _TEXT_PX = 22, 17
_LETTERS = {"R": (0.02, 0.5, "lm"), "L": (0.98, 0.5, "rm"), "A": (0.5, 0.02, "mt"), "P": (0.5, 0.98, "mb")}


def draw_overview(preview: Path) -> NDArray[np.uint8]:
    """Return the preview with a line below it as RGB, (rows, columns, 3)."""
    with Image.open(preview) as image:
        return _captioned([image.convert("RGB")], USE)


def draw_key_image(lesion: LesionPicture) -> NDArray[np.uint8]:
    """Return the windows of a lesion beside each other, above its caption, as RGB.

    An axial slice is shown the radiological way, its directions are named by letters.

    Args:
        lesion: what `draw_lesions` gives.

    Returns:
        (rows, columns, 3).
    """
    views = [_view(png) for png in lesion.views.values()]
    return _captioned(views, f"{lesion.caption}. From left to right: {', '.join(lesion.views)}. {USE}")


def _view(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png)) as stored:
        view = stored.convert("RGB")
    times = max(round(_LEAST_WIDTH / view.width), 1)
    view = view.resize((view.width * times, view.height * times), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(view)
    for letter, (x, y, anchor) in _LETTERS.items():
        place = round(x * view.width), round(y * view.height)
        pen.text(place, letter, "white", _font(_LETTER_PX), anchor, stroke_width=2, stroke_fill="black")
    return view


def _captioned(views: Sequence[Image.Image], caption: str) -> NDArray[np.uint8]:
    width, height = sum(view.width for view in views), max(view.height for view in views)
    lines = list(_wrapped(caption, width - 2 * _MARGIN))
    page = Image.new("RGB", (width, height + 2 * _MARGIN + _LINE * len(lines)), "black")
    left = 0
    for view in views:
        page.paste(view, (left, 0))
        left += view.width
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, height + _MARGIN + number * _LINE), line, "white", _font(_TEXT_PX))
    return np.asarray(page, np.uint8)


def _wrapped(text: str, width: int) -> Iterable[str]:
    """Break a text into lines of at most `width` pixels, at its spaces."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(_TEXT_PX).getlength(longer) > width:
            yield line
            longer = word
        line = longer
    yield line


@lru_cache
def _font(pixels: int) -> Any:
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), pixels)  # matplotlib brings it
