from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from scripts.errors import UserError
from scripts.io.grids import Grid, check_belongs

AFFINE = np.array([[-0.7, 0.02, 0.1, 90.0], [-0.02, -0.7, 0.2, 110.0], [0.0, 0.0, 5.0, -200.0], [0, 0, 0, 1.0]])


def stored(axes: str) -> Grid:
    image = nib.Nifti1Image(np.zeros((12, 10, 4), np.int16), AFFINE)
    now, wanted = nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(now, wanted))
    return Grid("label", turned.shape, turned.affine)


def test_a_label_may_be_stored_in_any_order(axes: str) -> None:
    check_belongs(stored(axes), Grid("image", (12, 10, 4), AFFINE))


def test_another_size_is_refused(axes: str) -> None:
    with pytest.raises(UserError, match="expected: those of image, 12 x 10 x 5"):
        check_belongs(stored(axes), Grid("image", (12, 10, 5), AFFINE))


def test_another_place_is_refused_with_both_affines() -> None:
    shifted = AFFINE.copy()
    shifted[2, 3] += 30
    with pytest.raises(UserError, match="lies up to 30 mm off its image") as error:
        check_belongs(Grid("label", (12, 10, 4), shifted), Grid("image", (12, 10, 4), AFFINE))
    assert "-170" in str(error.value)
    assert "-200" in str(error.value)
