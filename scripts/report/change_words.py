"""Words of the reports for lobes and for what changed since an earlier scan."""

from collections.abc import Mapping
from typing import Any

from ..messages import counted
from .lesion_matching import state
from .wording import NOT_STATED, PARTS, digits_within, infected, label, ml, percent, size

_GAP = "\N{NO-BREAK SPACE}"  # between a number and its unit
_PATIENT = {
    True: "Both are of one patient by the PatientID.",
    False: "They are of different patients.",
    None: "Whether both are of one patient was not checked.",
}
NOT_COMPARABLE = "not comparable"
LOBE_COLUMNS = ("", "volume", "opacities inside", "percentage", "score")
VOLUME_COLUMNS = ("opacities", "before", "now", "change", "in percent")
LESION_COLUMNS = ("no.", "no. before", "state", "before", "now", "in percent")


def signed_ml(volume: float) -> str:
    r"""Write a change of volume in ml, with its sign.

    >>> signed_ml(1.234), signed_ml(-12.34), signed_ml(0.001)
    ('+1.23\xa0ml', '−12.3\xa0ml', '0.00\xa0ml')
    """
    return _signed(volume, 2 if abs(volume) < 10 else 1, "ml")


def signed_percent(value: float | None) -> str:
    r"""Write a change in percent, with its sign; None, of nothing, is not stated.

    It is not rounded across the limit from which on a lesion has grown or shrunk.

    >>> signed_percent(12.34), signed_percent(25.04), signed_percent(-25.04), signed_percent(25.0)
    ('+12.3\xa0%', '+25.04\xa0%', '−25.04\xa0%', '+25.0\xa0%')
    """
    if value is None:
        return NOT_STATED
    return _signed(value, digits_within(value, state), "%")


def _signed(value: float, digits: int, unit: str) -> str:
    number = f"{abs(value):,.{digits}f}"
    sign = "" if not float(number.replace(",", "")) else "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{number}{_GAP}{unit}"


def score(lobes: Mapping[str, Any]) -> str:
    """Write the CT severity score of five lobes."""
    return NOT_STATED if lobes["score_of_25"] is None else f"{lobes['score_of_25']} of 25"


def states(counts: Mapping[str, int]) -> str:
    """Say how many lesions are new, grown and so on.

    >>> states({"new_count": 1, "grown_count": 0, "stable_count": 2})
    'Lesions: 1 new, 0 grown, 2 stable'
    """
    return "Lesions: " + ", ".join(f"{count} {name.removesuffix('_count')}" for name, count in counts.items())


def since(change: Mapping[str, Any]) -> str:
    """Say since when: the day of the earlier examination, else the name of its case."""
    return f"since {change['prior']['date'] or change['prior']['name']}"


def more_numbers(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return numbers of the first screen for lobes and change, as `key_numbers` does."""
    lobes, change = report["measures"]["lobes"], report["change"]
    found = [("CT severity score", score(lobes), "of five lobes, see below")] if lobes else []
    if change:
        found.append(("Change of the opacities", *_whole_change(change)))
    return found


def _whole_change(change: Mapping[str, Any]) -> tuple[str, str]:
    """Return the change of all opacities and since when, or why it is not stated."""
    if change["reason"]:
        return NOT_COMPARABLE, change["reason"]
    return signed_ml(change["infection"]["change_ml"]), since(change)


def lobe_rows(measures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table of lobes."""
    rows: list[tuple[str, ...]] = []
    for name, one in measures["lobes"]["parts"].items():
        cells = ("not in the mask", "", "", "")
        if one:
            points = one["score_of_5"]
            found = size(one, "lobe"), size(one, "infection"), infected(one, measures["infection"])
            cells = (*found, NOT_STATED if points is None else str(points))
        rows.append((f"{label(name)} lobe", *cells))
    return rows


def lobe_remarks(lobes: Mapping[str, Any]) -> list[str]:
    """Say how lobes are scored, or why they are not."""
    if lobes["reason"]:
        return [f"The CT severity score is not stated: {lobes['reason']}."]
    limits = "The limits for a lobe and their source are those of the grades above."
    return [f"CT severity score: {score(lobes)}.", f"{lobes['caution']} {limits}"]


def of_which_scans(change: Mapping[str, Any]) -> str:
    """Say which examinations are compared."""
    prior, days = change["prior"], change["days"]
    later = "" if days is None else f", {counted(abs(days), 'day')} {'later' if days >= 0 else 'earlier'}"
    apart = f" The volumes are {NOT_COMPARABLE}: {change['reason']}." if change["reason"] else ""
    return (
        f"Earlier report: {prior['name']}, examination of {prior['date'] or 'an unknown date'}; this examination: "
        f"{change['date'] or 'date unknown'}{later}. {_PATIENT[change['same_patient']]}{apart}"
    )


def volume_rows(change: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table of volumes before and now."""
    whole = not change["reason"]
    rows: list[tuple[str, ...]] = [("all", *_changed(change["infection"], whole))]
    for part, name in PARTS.items():
        if one := change["lungs"][part]:
            shares = percent(one["prior_infected_percent"]), percent(one["infected_percent"])
            rows += [(name, *_changed(one, whole)), (f"{name}, percentage", *shares, "", "")]
    return rows


def lesion_rows(change: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table of lesions before and now."""
    return [
        (
            *(str(one[key] or "none") for key in ("number", "prior_number")),
            one["state"],
            ml(one["prior_ml"]),
            ml(one["ml"]),
            signed_percent(one["change_percent"]),
        )
        for one in change["lesions"]["rows"]
    ]


def lesion_remark(change: Mapping[str, Any]) -> str:
    """Say how many lesions are new, grown and so on, or why that is not known."""
    lesions = change["lesions"]
    if lesions["reason"]:
        return f"Lesions were not matched: {lesions['reason']}."
    if not lesions["rows"]:
        return "There are no lesions in either scan."
    return states(lesions["counts"]) + ("." if lesions["complete"] else "; among the largest of each scan only.")


def _changed(one: Mapping[str, Any], comparable: bool) -> tuple[str, ...]:
    stated = signed_ml(one["change_ml"]), signed_percent(one["change_percent"])
    return ml(one["prior_ml"]), ml(one["ml"]), *(stated if comparable else (NOT_COMPARABLE, ""))


_FILTERS = (since, more_numbers, lobe_rows, lobe_remarks, of_which_scans, volume_rows, lesion_rows, lesion_remark)
FILTERS = {one.__name__: one for one in _FILTERS}
"""What the page's template applies to reports."""
