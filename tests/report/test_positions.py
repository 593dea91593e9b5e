"""Where lesions lie: in the patient, and on which image of the series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.io.dicom.reading import read_dicom
from scripts.io.volume import Scan, canonical
from scripts.report.measure import measure_infection
from scripts.report.positions import locate_lesions

Write = Callable[..., np.ndarray]
AXIAL, FLIPPED, CORONAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (1, 0, 0, 0, 0, -1)


def read(folder: Path, write_series: Write, orientation: tuple[int, ...], count: int) -> Scan:
    """A series whose slices lie 2.5 mm apart along z, or along y if they are coronal."""

    def change(ds: Any, _: int) -> None:
        ds.ImageOrientationPatient = [*map(float, orientation)]

    along = 1 if orientation == CORONAL else 2
    positions = [[-10.0, -20.0, 100.0] for _ in range(count)]
    for k, position in enumerate(positions):
        position[along] += 2.5 * k
    write_series(folder / "ct", positions, change=change)
    return read_dicom(folder / "ct")


def lesion_in(scan: Scan, voxel: tuple[int, int, int]) -> dict[str, Any]:
    """The lesion of one voxel of the stored array."""
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[voxel] = 1
    (lesion,) = measure_infection(None, canonical(mask, scan.affine), scan.spacing_lps, None)["lesions"]["lesions"]
    locate_lesions([lesion], scan)
    return dict(lesion)


@pytest.mark.parametrize("orientation", [AXIAL, FLIPPED])
def test_an_axial_slice_is_named_by_its_image(
    tmp_path: Path, write_series: Write, orientation: tuple[int, ...]
) -> None:
    scan = read(tmp_path, write_series, orientation, 6)
    order = scan.axial_slices()
    assert order == (list(range(6)) if orientation == AXIAL else list(range(5, -1, -1)))
    for k in range(6):
        lesion = lesion_in(scan, (3, 4, k))
        height = lesion["centroid_mm"][2]
        assert height == pytest.approx(scan.affine[2, 2] * k + scan.affine[2, 3])
        assert lesion["instance_number"] == 1 + round((height - 100) / 2.5)


def test_slices_that_are_not_axial_name_no_image(tmp_path: Path, write_series: Write) -> None:
    scan = read(tmp_path, write_series, CORONAL, 16)  # as few as a scan may have
    assert scan.axial_slices() is None
    assert "instance_number" not in lesion_in(scan, (3, 4, 0))


def test_one_axial_slice(tmp_path: Path, write_series: Write) -> None:
    scan = read(tmp_path, write_series, AXIAL, 1)
    assert scan.axial_slices() == [0]
    assert lesion_in(scan, (3, 4, 0))["instance_number"] == 1


def test_a_frame_of_a_multi_frame_file(tmp_path: Path, write_series: Write, make_enhanced: Callable[..., None]) -> None:
    stored = np.zeros((4, 20, 24), np.uint16)
    write_series(tmp_path / "ct", 1, change=lambda ds, _: make_enhanced(ds, [5.0, 0.0, 10.0, 15.0], stored))
    scan = read_dicom(tmp_path / "ct")
    assert [lesion_in(scan, (3, 4, k))["frame_number"] for k in range(4)] == [2, 1, 3, 4]
    assert scan.source(0) == (0, 2)
