"""Synthetic chests, drawn once, and real ones turned to LPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.tissue import segment_tissue
from scripts.data.phantom.scan import Phantom, make_phantom

SPACING = (2.2, 2.2, 4.5)


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom(1, shape=(160, 128, 60), spacing=SPACING)


@pytest.fixture(scope="session")
def phantom_lungs(phantom: Phantom) -> Lungs:
    return segment_lungs(segment_tissue(phantom.image, SPACING))


def _turn(image: sitk.Image) -> tuple[np.ndarray, tuple[float, ...]]:
    """Array (X, Y, Z) in LPS and spacing; SimpleITK's world is LPS already."""
    image = sitk.DICOMOrient(image, "LPS")
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.int16), image.GetSpacing()


@pytest.fixture(scope="session")
def p001(lung_ct_data: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    reader = sitk.ImageSeriesReader()
    folder = str(lung_ct_data / "covid_ct_md" / "P001")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return _turn(reader.Execute())


@pytest.fixture(scope="session")
def normal001(lung_ct_data: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    return _turn(sitk.ReadImage(str(lung_ct_data / "covid_ct_md" / "normal001_ct_256.nii.gz")))
