"""The steps between a scan and the network, as checkpoint metadata state them.

    scan or 2-D image -> (1, X, Y, Z) -> LPS -> HU -> field of view
                      -> (1, size, size, Z), still HU          `image_grid`
                      -> window to [0, 1] -> per-slice z-score  `network_input`

The configs list the same steps under the same names, for a training to change. Training refuses a
change that metadata cannot state (`training/preprocessing_spec.py`). A slice that is not square is
stretched, as in the paper.
"""

from collections.abc import Sequence

from monai.transforms import Compose, Orientationd, Resized, ScaleIntensityRanged, Transform

from ..anatomy.field_of_view import is_cropped
from ..io.volume import AXES
from .geometry import BelongsToImaged, EnsureVolumed, ResizeSlicesd
from .intensity import IntensityGuardd, SliceZScored
from .items import BOX, IMAGE, LABEL, LUNG
from .labels import InfectionMaskd
from .loading import LoadScand
from .lungs import CropToBoxd, FindBoxd, FindLungsd, LungsOnlyd
from .slice_input import DEFAULT_WINDOW


def load_image() -> list[Transform]:
    """Return the steps from a path under "image" to stored values in canonical orientation."""
    return [LoadScand(IMAGE), EnsureVolumed(IMAGE), Orientationd(IMAGE, axcodes=AXES, labels=None)]


def load_mask(key: str) -> list[Transform]:
    """Return the steps from a path to a mask in canonical orientation; it may be absent."""
    return [
        LoadScand(key, labels=True, allow_missing_keys=True),
        EnsureVolumed(key, allow_missing_keys=True),
        BelongsToImaged(key, IMAGE, allow_missing_keys=True),
        Orientationd(key, axcodes=AXES, labels=None, allow_missing_keys=True),
    ]


def resize_mask(key: str, size: int) -> Transform:
    """Return the resize of a mask to size x size in plane, to the nearest voxel."""
    return Resized(key, spatial_size=(size, size, -1), mode="nearest-exact", allow_missing_keys=True)


def image_grid(
    size: int, intensity: str = "auto", lung_only: bool = False, field_of_view: str = "scan", given_lungs: bool = False
) -> list[Transform]:
    """Return the steps from a path under "image" to HU (1, size, size, Z).

    Args:
        size: edge length of the network's input in pixels, a multiple of 16, or `OWN_SIZE`.
        intensity: how stored values become HU: "auto", "hu" or "window:LO,HI" (`to_hounsfield`).
        lung_only: whether voxels outside of the lungs become `OUTSIDE_HU`.
        field_of_view: what of a scan is resized: "scan", all of it, or "lungs", the box around them
            (`FindBoxd`); "box" then says which, and which slices it leaves out.
        given_lungs: whether a lung mask under "lung" goes before the one that thresholds find.
    """
    cropped = is_cropped(field_of_view)
    return [
        *load_image(),
        IntensityGuardd(IMAGE, intensity),
        *(load_mask(LUNG) if lung_only and given_lungs else []),
        *([FindLungsd(IMAGE, LUNG)] if lung_only else []),
        *([FindBoxd(IMAGE, BOX), CropToBoxd((IMAGE, LUNG) if lung_only else IMAGE, BOX)] if cropped else []),
        *([resize_mask(LUNG, size)] if lung_only else []),
        ResizeSlicesd(IMAGE, size),
        *([LungsOnlyd(IMAGE, LUNG)] if lung_only else []),
    ]


def network_input(window: Sequence[float], z_score: bool = True) -> list[Transform]:
    """Return the steps from HU to what the network sees: [0, 1] from a window (LO, HI), z-score."""
    low, high = window
    scaled = ScaleIntensityRanged(IMAGE, a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
    return [scaled, *([SliceZScored(IMAGE)] if z_score else [])]


class Preprocessing(Compose):
    """All steps, for whole scans (1, X, Y, Z); arguments as `image_grid` and `network_input`.

    A `label_grid` "network" resizes a label with the image; "scan" leaves it on the scan's own
    grid; "none" reads the image alone, and no lung mask beside it. Probabilities that are brought
    back to the scan are 0 outside of the field of view.
    """

    def __init__(
        self,
        size: int = 256,
        window: Sequence[float] = DEFAULT_WINDOW,
        intensity: str = "auto",
        label_grid: str = "network",
        z_score: bool = True,
        lung_only: bool = False,
        field_of_view: str = "scan",
    ) -> None:
        image = image_grid(size, intensity, lung_only, field_of_view, given_lungs=label_grid != "none")
        label: list[Transform] = []
        if label_grid != "none":
            label = [*load_mask(LABEL), InfectionMaskd(LABEL, allow_missing_keys=True)]
        if label_grid == "network":
            crop = [CropToBoxd(LABEL, BOX, allow_missing_keys=True)] if is_cropped(field_of_view) else []
            label += [*crop, resize_mask(LABEL, size)]
        super().__init__([*image, *label, *network_input(window, z_score)])
