"""The parts of the report's PDF: paragraphs, tables and pictures in the page's light colours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Image, Paragraph, Spacer, Table

from .change_words import (
    LESION_COLUMNS,
    LOBE_COLUMNS,
    VOLUME_COLUMNS,
    lesion_remark,
    lesion_rows,
    lobe_remarks,
    lobe_rows,
    of_which_scans,
    volume_rows,
)
from .lesion_pictures import MOST, LesionPicture
from .lettering import BOLD, REGULAR, drawable, font_file
from .profile import COLOURS
from .wording import LEGEND, PARTS, grade, hu_range, infected, label, percent, size, words

_SOFT, _LINE, _NOTE_EDGE = (HexColor(COLOURS[name]) for name in ("soft", "line", "infection"))
_INK, _PANEL, _NOTE, _ALARM = (HexColor(one) for one in ("#1b2430", "#f3f5f8", "#fff2d9", "#a11212"))  # report.css's
_TOP = ("VALIGN", (0, 0), (-1, -1), "TOP")
_PANELS, _PICTURES = 4, 3  # in a row
_SIDE = 0.25  # of a picture of a lesion, of the width
_SHOWN = 6  # lesions with a picture
_HIGH = 0.55  # the preview, of the width


class Parts:
    """Makes parts for a page of the given width in points."""

    font, soft = REGULAR, _SOFT

    def __init__(self, width: float) -> None:
        self._width = width
        for name in (REGULAR, BOLD):
            pdfmetrics.registerFont(TTFont(name, font_file(name)))

    def title(self, text: str) -> Flowable:
        """Return the heading of the document."""
        return _paragraph(text, 14, BOLD, after=2)

    def heading(self, text: str) -> Flowable:
        """Return the heading of a section."""
        return _paragraph(text, 10, BOLD, before=7, after=2)

    def finding(self, text: str) -> Flowable:
        """Return the sentence of the finding."""
        return _paragraph(text, 10.5, BOLD, before=5, after=5)

    def text(self, text: str) -> Flowable:
        """Return a paragraph."""
        return _paragraph(text, 8, after=2)

    def soft_text(self, text: str) -> Flowable:
        """Return a paragraph of less weight."""
        return _paragraph(text, 7.5, colour=_SOFT, after=2)

    def banner(self, text: str) -> Flowable:
        """Return a line that nobody overlooks."""
        style = [("BACKGROUND", (0, 0), (-1, -1), _ALARM), ("BOTTOMPADDING", (0, 0), (-1, -1), 5)]
        return Table(
            [[_paragraph(text, 9, BOLD, HexColor("#ffffff"))]], [self._width], style=style, spaceAfter=5, hAlign="LEFT"
        )

    def warnings(self, title: str, texts: Sequence[str]) -> Flowable:
        """Return the box of warnings."""
        rows = [[_paragraph(title, 8.5, BOLD)], *([_paragraph(f"• {one}", 8)] for one in texts)]
        style = [
            ("BACKGROUND", (0, 0), (-1, -1), _NOTE),
            ("LINEBEFORE", (0, 0), (0, -1), 3, _NOTE_EDGE),
            *_padded(2),
        ]
        return Table(rows, [self._width], style=style, spaceBefore=4, spaceAfter=2, hAlign="LEFT")

    def picture(self, png: Path, caption: str) -> list[Flowable]:
        """Return a picture as wide as the page, if that is not too high, and its caption."""
        wide, high = ImageReader(str(png)).getSize()
        scale = min(self._width / wide, _HIGH * self._width / high)
        return [Image(str(png), wide * scale, high * scale, hAlign="LEFT"), self.soft_text(caption)]

    def numbers(self, found: Sequence[tuple[str, str, str]]) -> Flowable:
        """Return name, value and remark of numbers, in panels."""
        cells = [
            [_paragraph(name, 7, colour=_SOFT), _paragraph(value, 11, BOLD), _paragraph(more, 7, colour=_SOFT)]
            for name, value, more in found
        ]
        style = [("BACKGROUND", (0, 0), (-1, -1), _PANEL), ("GRID", (0, 0), (-1, -1), 0.5, _LINE), _TOP, *_padded(4)]
        return Table(_in_rows(cells, _PANELS), [self._width / _PANELS] * _PANELS, style=style, hAlign="LEFT")

    def lungs(self, measures: Mapping[str, Any]) -> Flowable:
        """Return the table of both lungs and of each."""
        rows = [("", "volume", "opacities inside", "percentage", "grade")]
        for part, name in PARTS.items():
            one = measures["lungs"][part]
            sizes = size(one, "lung"), size(one, "infection")
            rows.append((name, *sizes, infected(one, measures["infection"]), grade(measures, part)))
        return self._table(rows, 1.2)

    def lobes(self, measures: Mapping[str, Any]) -> list[Flowable]:
        """Return the table of the lobes, with what their score is."""
        table = self._table([LOBE_COLUMNS, *lobe_rows(measures)], 1.2)
        return [table, *(self.soft_text(one) for one in lobe_remarks(measures["lobes"]))]

    def change(self, change: Mapping[str, Any]) -> list[Flowable]:
        """Return the tables of volumes and of the first lesions before and now."""
        volumes, lesions = volume_rows(change), lesion_rows(change)
        left_out = f" The first {MOST} are printed; the others are in the file." if len(lesions) > MOST else ""
        found = [self.text(of_which_scans(change)), self._table([VOLUME_COLUMNS, *volumes], 1.6)]
        found.append(self.text(lesion_remark(change) + left_out))
        found += [self._table([LESION_COLUMNS, *lesions[:MOST]], 0.4)] if lesions else []
        return [*found, self.soft_text(change["lesions"]["rule"])]

    def density(self, density: Mapping[str, Any]) -> list[Flowable]:
        """Return the table of density classes, or why there is none."""
        if "reason" in density:
            return [self.text(f"Not stated: {density['reason']}.")]
        if density["statistics"] is None:
            return [self.text("There is nothing to measure.")]
        rows = [("density", "HU", "of the opacities", "size")]
        for one in density["classes"]:
            rows.append(
                (one["words"], hu_range(one), percent(one["infection_percent"]), size(one, "infection", "volume_ml"))
            )
        statistics = density["statistics"]
        mean = f"Mean of the opacities {statistics['mean_hu']:.0f} HU, median {statistics['median_hu']:.0f} HU."
        return [self._table(rows, 1.8), self.soft_text(f"{mean} {density['classes_source']}")]

    def lesions(self, lesions: Mapping[str, Any], oriented: bool) -> list[Flowable]:
        """Return the table of the largest lesions."""
        if not lesions["lesion_count"]:
            return [self.text("Nothing was outlined.")]
        listed = lesions["lesions"][:MOST]
        rows = [("no.", "size", "of the opacities", *(("side", "slices from the head") if oriented else ()))]
        for number, one in enumerate(listed, 1):
            where = (
                one["side"] or words(None),
                "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}".join(map(str, one["slices_from_superior"])),
            )
            row = (str(number), size(one, "infection", "volume_ml"), percent(one["infection_percent"]))
            rows.append((*row, *(where if oriented else ())))
        return [
            self.text(f"{len(listed)} of {lesions['lesion_count']} lesions, the largest first."),
            self._table(rows, 0.4),
        ]

    def gallery(self, lesions: Sequence[LesionPicture]) -> list[Flowable]:
        """Return pictures of the largest lesions in their first window, three in a row."""
        side = _SIDE * self._width
        cells = []
        for one in lesions[:_SHOWN]:
            name, png = next(iter(one.views.items()))
            wide, high = ImageReader(BytesIO(png)).getSize()
            scale = side / max(wide, high)
            picture = Image(BytesIO(png), wide * scale, high * scale)
            cells.append([picture, Spacer(1, 2), _paragraph(f"{one.caption}; {name}", 6.5, colour=_SOFT)])
        if not cells:
            return []
        table = Table(_in_rows(cells, _PICTURES), [self._width / _PICTURES] * _PICTURES, style=[_TOP, *_padded(3)])
        return [Spacer(1, 4), table, self.soft_text(LEGEND)]

    def facts(self, fields: Mapping[str, Any], leave_out: Collection[str]) -> Flowable:
        """Return names and values in one paragraph."""
        told = (f"{label(name)}: {words(value)}" for name, value in fields.items() if name not in leave_out)
        return _paragraph("; ".join(told), 6.5, colour=_SOFT)

    def _table(self, rows: Sequence[Sequence[str]], first: float) -> Flowable:
        """Return a table; `first` is the width of its first column in those of the others."""
        head, *body = rows
        each = self._width / (len(head) - 1 + first)
        widths = [each * first, *[each] * (len(head) - 1)]
        cells = [
            [_paragraph(one, 7.5, colour=_SOFT) for one in head],
            *([_paragraph(one, 8) for one in row] for row in body),
        ]
        style = [("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE), _TOP, *_padded(1.5)]
        return Table(cells, widths, style=style, spaceAfter=3, hAlign="LEFT")


def _paragraph(
    text: str, points: float, font: str = REGULAR, colour: HexColor = _INK, before: float = 0, after: float = 0
) -> Paragraph:
    looks = {"fontName": font, "fontSize": points, "leading": 1.3 * points, "textColor": colour}
    style = ParagraphStyle("", **looks, spaceBefore=before, spaceAfter=after)
    return Paragraph(escape(drawable(text)), style)


def _in_rows(cells: Sequence[Any], across: int) -> list[list[Any]]:
    padded = [*cells, *[""] * (-len(cells) % across)]
    return [padded[start : start + across] for start in range(0, len(padded), across)]


def _padded(points: float) -> list[tuple[Any, ...]]:
    return [(f"{side}PADDING", (0, 0), (-1, -1), points) for side in ("TOP", "BOTTOM")]
