"""What the fonts of pictures and PDF draw: names of files and patients may hold anything."""

import unicodedata
from functools import cache
from pathlib import Path

REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"
"""The fonts of preview and PDF, which matplotlib brings."""


def font_file(name: str) -> Path:
    """Return the file of a font that matplotlib brings."""
    from matplotlib import get_data_path

    return Path(get_data_path(), "fonts", "ttf", f"{name}.ttf")


def drawable(text: str) -> str:
    r"""Return a text in which what cannot be drawn as it is meant is spelled out.

    That are letters that the fonts lack, which would all become the same box; letters that are
    written from right to left, which would stand in the wrong order; and characters that are not
    seen.

    >>> drawable("Lungé_\u2264 5"), drawable("\u80ba_1"), drawable("\u05d0\u202e\ud800")
    ('Lungé_≤ 5', '\\u80ba_1', '\\u05d0\\u202e\\ud800')
    """
    composed = unicodedata.normalize("NFC", text)  # an accent after its letter, as macOS names files
    return "".join(one if _is_drawn(one) else one.encode("unicode_escape").decode() for one in composed)


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters, without its middle where it is longer.

    >>> shortened("patient_0123456789_0001", 12), shortened("patient", 12)
    ('patie…9_0001', 'patient')
    """
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def _is_drawn(one: str) -> bool:
    if one.isspace():
        return True
    from_the_right = unicodedata.bidirectional(one) in ("R", "AL")
    return not from_the_right and unicodedata.category(one)[0] != "C" and ord(one) in _glyphs()


@cache
def _glyphs() -> frozenset[int]:
    """Return what both fonts have."""
    from matplotlib.ft2font import FT2Font

    regular, bold = (FT2Font(str(font_file(name))).get_charmap() for name in (REGULAR, BOLD))
    return frozenset(regular) & frozenset(bold)
