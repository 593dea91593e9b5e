"""All layouts, and which of them a folder is."""

from pathlib import Path

from ...errors import UserError
from .base import Layout
from .case import DATALIST
from .cohorts import COVID_19_20, MOSMED, PART1, PART2, UESTC
from .generic import GENERIC
from .negatives import NEGATIVES
from .pictures import CARES, PAPER, PSEUDO, SEMISEG
from .zenodo import FINER, KAGGLE, ZENODO

LAYOUTS: tuple[Layout, ...] = (
    *(ZENODO, FINER, KAGGLE, PART1, PART2, MOSMED, UESTC, COVID_19_20),
    *(SEMISEG, PSEUDO, PAPER, CARES, GENERIC, NEGATIVES),
)
_DEPTH = 3

_RADIOPAEDIA = "MedSeg part 2 and Zenodo 3757476 share radiopaedia patients, who may be in several folds"
# Data sets that hold the same scans under other names.
OVERLAPS: dict[frozenset[str], str] = {
    frozenset({"medseg_part2", "zenodo_3757476"}): _RADIOPAEDIA,
    frozenset({"medseg_part2", "kaggle_covid19_ct_scans"}): _RADIOPAEDIA,
    frozenset({"medseg_part1", "covid_semiseg"}): "the labelled slices of COVID-SemiSeg come from MedSeg part 1",
}


def recognise(folder: Path) -> tuple[Layout, Path]:
    """Find the layout of a folder and its tree's root, up to three folders deeper.

    Raises:
        UserError: no folder, no layout matches, several do, or the folder is the output of
            `prepare`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected: the folder of a data set")
    matches = _matches(folder, _DEPTH)
    if not matches:
        expected = [f"{layout.name}: {layout.tree}" for layout in LAYOUTS]
        raise UserError(f"{folder}: no known data set; expected: a folder that holds one of", *expected)
    if len(matches) > 1:
        found = "; ".join(f"{layout.name} in {root}" for layout, root in matches)
        raise UserError(f"{folder}: matches several data sets: {found}; expected: one folder for each")
    return matches[0]


def _matches(folder: Path, depth: int) -> list[tuple[Layout, Path]]:
    """Match at the folder, else those below it; nothing is looked for inside a match."""
    if (folder / DATALIST).is_file():
        raise UserError(f"{folder}: prepared already ({DATALIST}); expected: the data set that it was made from")
    here = [(layout, folder) for layout in LAYOUTS if layout.matches(folder)]
    if here or depth == 0:
        return here
    below = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "__")))
    return [match for path in below for match in _matches(path, depth - 1)]


def overlap_warnings(layouts: set[str]) -> list[str]:
    """What a merged data set has to say about scans that are in it twice."""
    return sorted({text for pair, text in OVERLAPS.items() if pair <= layouts})
