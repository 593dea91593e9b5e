"""Digitally reconstructed radiographs (DRR) of a CT and its lesions, from the front."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from ..files import check_results_folder, results_folder
from ..inference.hounsfield import HounsfieldSlices
from ..io.masks import read_mask
from ..io.reading import read_scan
from ..transforms.slice_input import DEFAULT_WINDOW

Method = Literal["attenuation", "sum"]
METHODS: tuple[Method, ...] = ("attenuation", "sum")

WATER = 0.0193
"""Linear attenuation of water at 70 keV in 1/mm (NIST XCOM: 0.193 1/cm), about what a chest
radiograph has."""

WRITTEN = {"radiograph.png", "lesion.png", "lesion_tenths_of_mm.png", "lesion_voxels.png"}

LEAST_HEIGHT = 300
"""Rows below which the plain sum of CT2Xray is stretched to as many."""


class Radiograph(NamedTuple):
    """A projection seen from the front: rows from head to feet, columns from right to left.

    Attributes:
        picture: 8 bits, (rows, columns); bright is dense.
        lesion_mm: how much lesion the ray passes, (rows, columns), float32; in voxels for the plain
            sum.
    """

    picture: NDArray[np.uint8]
    lesion_mm: NDArray[np.float32]


def project_attenuation(
    hu: NDArray[np.int16], mask: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> Radiograph:
    """Project as X-rays are: the line integral of the attenuation along parallel rays.

    Attenuation is that of water times 1 + HU / 1000. The picture is the integral, which is the
    logarithm of the intensity, between its 0.5 and 99.5 percentiles, at square pixels of the CT's
    columns.

    Args:
        hu: (X, Y, Z) in LPS order.
        mask: lesions above 0, the same shape.
        spacing: voxel size along x, y, z in mm.
    """
    x, y, z = spacing
    attenuation = np.empty((hu.shape[0], hu.shape[2]), np.float32)
    lesion = np.empty_like(attenuation)
    for k in range(hu.shape[2]):  # slice by slice: no float copy of the scan
        attenuation[:, k] = WATER * y * np.clip(1 + hu[..., k] / 1000, 0, None).sum(axis=1)
        lesion[:, k] = y * np.count_nonzero(mask[..., k], axis=1)
    rows = max(round(hu.shape[2] * z / x), 1)
    low, high = np.percentile(attenuation, (0.5, 99.5))
    grey = np.clip((attenuation - low) / max(high - low, 1e-6), 0, 1) * 255
    return Radiograph(_frontal(grey, rows).round().astype(np.uint8), _frontal(lesion, rows, "nearest-exact"))


def project_sum(hu: NDArray[np.int16], mask: NDArray[np.uint8]) -> Radiograph:
    """Project as CT2Xray does: the plain sum of 8-bit grey values, lesions as 255.

    Rows are slices; fewer than 300 are stretched to 300.

    Args:
        hu: (X, Y, Z) in LPS order; grey values are those of the window [-1250, 250] HU.
        mask: lesions above 0, the same shape.
    """
    low, high = DEFAULT_WINDOW
    total = np.empty((hu.shape[0], hu.shape[2]), np.float32)
    lesion = np.empty_like(total)
    for k in range(hu.shape[2]):
        grey = (np.clip((hu[..., k] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        total[:, k] = np.where(mask[..., k] > 0, 255, grey).sum(axis=1)
        lesion[:, k] = np.count_nonzero(mask[..., k], axis=1)
    rows = max(hu.shape[2], LEAST_HEIGHT)
    grey_values = _frontal(total / max(float(total.max()), 1.0) * 255, rows)
    return Radiograph(grey_values.round().astype(np.uint8), _frontal(lesion, rows, "nearest-exact"))


def _frontal(projection: NDArray[np.float32], rows: int, mode: str = "bilinear") -> NDArray[np.float32]:
    """Turn (X, Z) into (rows, columns), head at the top; lesions stay in their slices."""
    seen = torch.from_numpy(projection[:, ::-1].T.copy().astype(np.float32))
    resized = F.interpolate(seen[None, None], (rows, projection.shape[0]), mode=mode)[0, 0]
    grey: NDArray[np.float32] = resized.cpu().numpy()
    return grey


def project_scan(scan_path: str | Path, mask_path: str | Path, method: str) -> Radiograph:
    """Project a scan in HU and its lesions, above 0 in a mask on the scan's grid.

    Raises:
        UserError: if the files cannot be used, the method is unknown, or the voxel size is unknown
            and needed.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; expected: {', '.join(METHODS)}")
    scan = read_scan(Path(scan_path))
    lesions = (read_mask(Path(mask_path), scan) > 0).astype(np.uint8)
    if method == "attenuation" and not scan.voxel_size_known:
        raise UserError(f"{scan_path}: its voxel size is unknown; expected: a scan with one, or --method sum")
    hu = HounsfieldSlices(scan).rounded()
    return project_attenuation(hu, lesions, scan.spacing_lps) if method == "attenuation" else project_sum(hu, lesions)


def save_radiograph(seen: Radiograph, picture: Path, lesion: Path, depth: Path, method: str) -> None:
    """Write a projection as PNG: grey values, lesions (0, 255), and their depth in 16 bits.

    The depth is in tenths of a millimetre, for the plain sum in voxels.
    """
    unit = 10 if method == "attenuation" else 1
    Image.fromarray(seen.picture).save(picture)
    Image.fromarray(((seen.lesion_mm > 0) * np.uint8(255)).astype(np.uint8)).save(lesion)
    Image.fromarray(np.clip((seen.lesion_mm * unit).round(), 0, 65535).astype(np.uint16)).save(depth)


def radiograph_files(
    scan_path: str | Path, mask_path: str | Path, out: str | Path, method: str = "attenuation", overwrite: bool = False
) -> Path:
    """Write `radiograph.png`, `lesion.png` (0, 255) and `lesion_tenths_of_mm.png` (16 bits).

    Args:
        scan_path: a scan in HU.
        mask_path: lesions above 0, on the scan's grid.
        out: the folder; it appears when all is complete.
        method: "attenuation" or "sum", which writes `lesion_voxels.png`.
        overwrite: replaces what an earlier call wrote.

    Raises:
        UserError: as `project_scan`, or if the folder holds other files.
    """
    target = Path(out)
    check_results_folder(target, WRITTEN, overwrite)
    seen = project_scan(scan_path, mask_path, method)
    depth = "lesion_tenths_of_mm.png" if method == "attenuation" else "lesion_voxels.png"
    with results_folder(target, WRITTEN, overwrite) as folder:
        save_radiograph(seen, folder / "radiograph.png", folder / "lesion.png", folder / depth, method)
    return target
