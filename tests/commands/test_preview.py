"""`python -m scripts preview`: from files to a picture."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from scripts.commands.preview import preview
from scripts.errors import UserError


def test_command_writes_and_names_the_picture(tmp_path, capsys):
    scan = np.full((16, 16, 6), -900, np.int16)
    mask = np.zeros(scan.shape, np.uint8)
    mask[4:9, 4:9, 2:4] = 1
    for name, array in (("scan", scan), ("mask", mask)):
        nib.save(nib.Nifti1Image(array, np.diag([-2.0, -2, 5, 1])), tmp_path / f"{name}.nii.gz")
    files = [tmp_path / name for name in ("scan.nii.gz", "mask.nii.gz", "out.png")]
    preview(*files, truth=files[1])
    assert capsys.readouterr().out.strip() == str(files[2])
    assert imread(files[2]).shape[2] == 4
    with pytest.raises(UserError, match="exists"):
        preview(*files)
    preview(*files, overwrite=True)
