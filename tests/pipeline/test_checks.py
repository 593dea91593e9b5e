"""What is no chest is refused on positive evidence; what contradicts the header is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.anatomy.lungs import segment_lungs
from scripts.anatomy.tissue import segment_tissue
from scripts.data.phantom.scan import Phantom, make_phantom
from scripts.errors import UserError
from scripts.io.volume import Note, Scan
from scripts.pipeline.checks import check_anatomy

SPACING = (2.2, 2.2, 4.5)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(1, shape=(160, 128, 60), spacing=SPACING)


def check(hu: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> list[Note]:
    scan = Scan("case", Path("case.nii.gz"), "nifti", hu, np.diag([-spacing[0], -spacing[1], spacing[2], 1]))
    seen = segment_tissue(hu, scan.spacing_lps)
    return check_anatomy(seen, scan, segment_lungs(seen))


def test_a_chest_as_its_header_says_gives_no_finding(phantom: Phantom) -> None:
    assert check(phantom.image) == []


@pytest.mark.parametrize(("turn", "said"), [(np.s_[:, ::-1], "Front and back"), (np.s_[:, :, ::-1], "Head and feet")])
def test_a_header_that_contradicts_the_anatomy_is_a_warning(phantom: Phantom, turn: tuple[slice], said: str) -> None:
    (note,) = check(phantom.image[turn])
    assert note.kind == "warning"
    assert note.text.startswith(said)


def pelvis() -> np.ndarray:
    """A body shown whole, with some gas, over 270 mm."""
    hu = np.full((160, 128, 60), -1000, np.int16)
    x, y = np.mgrid[:160, :128]
    hu[((x - 80) / 65) ** 2 + ((y - 64) / 48) ** 2 < 1] = 40
    hu[72:80, 46:54, 16:30] = -990
    return hu


def test_a_whole_body_without_lungs_is_refused_with_file_finding_and_remedy() -> None:
    with pytest.raises(UserError, match=r"^case\.nii\.gz: No lung is seen: .*; expected: a CT of the chest in HU$"):
        check(pelvis())


def test_where_evidence_is_lacking_it_is_a_warning_only() -> None:
    """A body that the field of view cuts, a short piece of one,
    and no body at all may still be of use."""
    for hu, said in (
        (pelvis()[20:], "No lung is seen"),
        (pelvis()[:, :, :20], "No lung is seen"),
        (np.full((160, 128, 60), -1000, np.int16), "There is no body"),
    ):
        notes = check(hu)
        assert {note.kind for note in notes} == {"warning"}
        assert notes[0].text.startswith(said)
