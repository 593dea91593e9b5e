"""Whether the slices of a DICOM series are of one kind."""

from collections import Counter
from collections.abc import Sequence

from ...errors import UserError
from ...messages import some
from .header import COMPLETE, Slice, is_known

_SAME_SPACING = 1e-4  # mm; over 1,000 pixels a tenth of a millimetre
_PARALLEL = 1e-3  # direction cosines; scanners round to six digits, exporters to fewer


def check_alike(slices: list[Slice]) -> None:
    """Raise UserError for scout views, unreadable pixels, slices of other size or orientation."""
    if all(one.localizer for one in slices):
        raise UserError(f"{slices[0].path}: a localizer (scout view); expected: a CT series of axial slices")
    _refuse_unknown_syntax(slices)
    incomplete = [one.path.name for one in slices if not one.complete]
    if incomplete:
        raise UserError(f"{slices[0].path.parent}: {some(incomplete)}: truncated; expected: {COMPLETE}")
    _refuse_others(slices, "pixels", [(one.columns, one.rows) for one in slices], 0)
    _refuse_others(slices, "mm between pixels", [one.pixel_spacing for one in slices], _SAME_SPACING)
    _refuse_others(slices, "as orientation", [one.orientation for one in slices], _PARALLEL)
    if not slices[0].rows or not slices[0].columns:
        raise UserError(f"{slices[0].path}: no Rows or Columns; expected: {COMPLETE}")


def _refuse_unknown_syntax(slices: list[Slice]) -> None:
    unknown = [one for one in slices if not is_known(one.compression)]
    if unknown:
        which = f"{len(unknown)} of {len(slices)} slices in the private transfer syntax {unknown[0].compression[:64]}"
        expected = "a transfer syntax of the standard; convert the files (gdcmconv --raw IN OUT)"
        raise UserError(f"{unknown[0].path}: {which}; expected: {expected}")


def _refuse_others(
    slices: list[Slice], what: str, values: Sequence[tuple[float, ...] | None], tolerance: float
) -> None:
    usual = Counter(values).most_common(1)[0][0]
    others = [k for k, value in enumerate(values) if not _alike(value, usual, tolerance)]
    if others:
        names = some([slices[k].path.name for k in others])
        found = f"{names}: {numbers_in_words(values[others[0]])} {what}, the rest {numbers_in_words(usual)}"
        raise UserError(f"{slices[0].path.parent}: {found}; expected: a series of equal slices (move the others away)")


def _alike(one: tuple[float, ...] | None, other: tuple[float, ...] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


def numbers_in_words(value: tuple[float, ...] | None) -> str:
    """Return '0.7 x 0.7', or 'no' for None."""
    return "no" if value is None else " x ".join(f"{one:g}" for one in value)
