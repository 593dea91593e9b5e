"""Peak memory of `segment` on the largest scan that a lab may have,
against the formula of docs/segment.md."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHAPE = (512, 512, 1500)
FIXED_GB = 1.3  # libraries, network, one batch of slices, the coarse grid of the lungs

SCRIPT = """
import resource, sys
from pathlib import Path
from scripts.commands.segment import segment
segment([Path(sys.argv[1])], Path(sys.argv[2]), weights=Path(sys.argv[3]), device="cpu", quiet=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_long_chest(path: Path) -> None:
    """A body with two lungs over 1500 slices of 0.5 mm, int16."""
    x, y = np.mgrid[:512, :512]
    slice_ = np.full((512, 512), -1000, np.int16)
    slice_[((x - 256) / 230) ** 2 + ((y - 256) / 170) ** 2 < 1] = 40
    for centre in (150, 362):
        slice_[((x - centre) / 80) ** 2 + ((y - 256) / 110) ** 2 < 1] = -850
    solid = np.where(slice_ < -900, slice_, np.int16(40)).astype(np.int16)
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units("mm")
    header.set_sform(np.diag([-0.7, -0.7, 0.5, 1.0]), 1)
    header.set_qform(np.diag([-0.7, -0.7, 0.5, 1.0]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with path.open("wb") as file:
        file.write(header.binaryblock + b"\0" * 4)
        for k in range(SHAPE[2]):
            file.write((slice_ if 300 <= k < 1200 else solid).tobytes(order="F"))


@pytest.mark.slow
def test_a_scan_of_1500_slices_stays_within_the_formula(
    bundle_root: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    weights = make_checkpoint(tmp_path / "model.pt", size=32)
    write_long_chest(tmp_path / "long.nii")
    words = [sys.executable, "-c", SCRIPT, tmp_path / "long.nii", tmp_path / "out", weights]
    done = subprocess.run([str(word) for word in words], cwd=bundle_root, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    voxels = float(np.prod(SHAPE))
    peak = float(done.stdout.splitlines()[-1])
    print(f"peak {peak / 1e9:.2f} GB, {peak / voxels:.2f} bytes a voxel")
    assert peak < voxels * (2 + 1) + FIXED_GB * 1e9  # stored int16 and the mask
    assert nib.load(tmp_path / "out" / "long" / "infection.nii.gz").shape == SHAPE
