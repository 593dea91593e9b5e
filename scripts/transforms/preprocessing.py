"""The one definition of preprocessing that training, evaluation, inference and MONAI Label share.

    scan or picture -> (1, X, Y, Z) -> LPS -> HU -> field of view
                    -> (1, size, size, Z), still HU                                    `NetworkGrid`
                    -> window to [0, 1] -> per-slice z-score                           `NetworkInput`

Training caches what `NetworkGrid` gives and runs `NetworkInput` on single slices, with augmentation
around it; all else runs both at once (`Preprocessing`). A slice that is not square is stretched, as
in the paper. The field of view is the whole scan, as in the paper, or the box around the lungs.
Networks for volumes get two switches turned: `lung_only` takes out what is no lung, and without
`z_score` the values stay in [0, 1]. The network of classes sees the image and, as a second channel,
its prior (`ClassPreprocessing` for whole scans, `ClassTrainingInput` for slices).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import ImageReader, PILReader
from monai.transforms import (
    AsDiscreted,
    Compose,
    ConcatItemsd,
    DeleteItemsd,
    LoadImaged,
    Orientationd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    Resized,
    Transform,
)
from nibabel.filebasedimages import ImageFileError

from ..anatomy.field_of_view import FIELDS_OF_VIEW, MARGIN_MM
from ..errors import UserError, find_user_error
from ..io.images import grey_values, label_values
from ..io.monai_reader import ScanReader
from ..io.volume import AXES
from ..settings import flag
from .geometry import BelongsToImaged, EnsureVolumed, ResizeSlicesd
from .intensity import DEFAULT_WINDOW, IntensityGuardd, RandWindowd, SliceZScored
from .labels import CLASSES, ClassNumbersd, EdgeLabeld, InfectionMaskd
from .lungs import CropToBoxd, FindBoxd, FindLungsd, LungsOnlyd

SIZE_STEP = 16
IMAGE = "image"
LABEL = "label"
PRIOR = "prior"
LUNG = "lung"
BOX = "box"
SCALE = (0.8, 1.2)


class LoadScand(LoadImaged):
    """`LoadImaged` that says in one line which file it cannot read."""

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Returns the item with images in place of paths.

        Raises:
            UserError: if a file cannot be read.
        """
        try:
            return dict(super().__call__(data, reader))
        except (OSError, EOFError, ValueError, RuntimeError, zlib.error, ImageFileError) as error:
            if find_user_error(error):
                raise
            files = ", ".join(str(data[key]) for key in self.key_iterator(dict(data)))
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{files}: cannot be read ({reason}); expected: NIfTI, NRRD, MetaImage, PNG, JPG"
            ) from error


def load_image() -> list[Transform]:
    """Steps from a path under "image" to HU in canonical orientation; the scan's own grid."""
    return _load(IMAGE, grey_values)


def load_label(key: str = LABEL) -> list[Transform]:
    """Steps from a path under a key to a mask in [0, 1] in canonical orientation; it may be absent."""
    return [*_load(key, label_values), InfectionMaskd(key, allow_missing_keys=True)]


def _load(key: str, converter: object) -> list[Transform]:
    missing = key != IMAGE
    load = LoadScand(key, ensure_channel_first=True, allow_missing_keys=missing)
    for reader in (ScanReader(), PILReader(converter=converter)):  # the last that knows a suffix reads it
        load.register(reader)
    return [
        load,
        EnsureVolumed(key, allow_missing_keys=missing),
        *([BelongsToImaged(key, IMAGE, allow_missing_keys=True)] if missing else []),
        Orientationd(key, axcodes=AXES, labels=None, allow_missing_keys=missing),
    ]


def check_size(size: int, name: str = "spatial_size") -> None:
    """Refuses an edge length in pixels that networks cannot halve as often as they do.

    Raises:
        UserError: with what `name` is and what is expected.
    """
    if size < SIZE_STEP or size % SIZE_STEP:
        raise UserError(f"{name} is {size}; expected: multiples of {SIZE_STEP}, which the networks can halve")


def resize_image(size: int) -> Transform:
    """Bilinear to size x size in plane without anti-aliasing, the slices as they are."""
    check_size(size)
    return ResizeSlicesd(IMAGE, (size, size))


def resize_label(size: int, key: str = LABEL) -> Transform:
    """Nearest neighbour to size x size in plane, the slices as they are."""
    return Resized(key, spatial_size=(size, size, -1), mode="nearest-exact", allow_missing_keys=True)


def grid_image(
    size: int, intensity: str, lung_only: bool, field_of_view: str, image_alone: bool = False
) -> list[Transform]:
    """Steps from a path under "image" to HU (1, size, size, Z), what is no lung taken out where that is wanted.

    A lung mask under "lung" is read where there is one; with `image_alone` there never is.
    """
    if field_of_view not in FIELDS_OF_VIEW:
        raise UserError(f"field_of_view is {field_of_view!r}; expected: {', '.join(FIELDS_OF_VIEW)}")
    given = [] if image_alone else _load(LUNG, label_values)
    lungs = [*given, FindLungsd(IMAGE, LUNG)] if lung_only else []
    crop = [FindBoxd(IMAGE, BOX), *crop_to_field((IMAGE, LUNG), field_of_view)] if field_of_view == "lungs" else []
    masked = [resize_label(size, LUNG), resize_image(size), LungsOnlyd(IMAGE, LUNG)] if lung_only else []
    return [*load_image(), IntensityGuardd(IMAGE, intensity), *lungs, *crop, *(masked or [resize_image(size)])]


def crop_to_field(keys: KeysCollection, field_of_view: str) -> list[Transform]:
    """Crops to the field of view of the scan, which `grid_image` found."""
    return [CropToBoxd(keys, BOX, allow_missing_keys=True)] if field_of_view == "lungs" else []


class NetworkGrid(Compose):
    """From paths to volumes (1, size, size, Z): image in HU, label in {0, 1}.

    Args:
        size: edge length of the network's input in pixels, a multiple of 16.
        intensity: how stored values become HU: "auto", "hu" or "window:LO,HI" (`to_hounsfield`).
        lung_only: whether what is no lung becomes `OUTSIDE_HU`; the lungs are those of a mask under
            "lung" or, where there is none, found by `FindLungsd`.
        field_of_view: what of a scan is resized: "scan", all of it, or "lungs", the box around them
            (`FindBoxd`); "box" then says which, and which slices it leaves out.
    """

    def __init__(
        self, size: int = 256, intensity: str = "auto", lung_only: bool | str = False, field_of_view: str = "scan"
    ) -> None:
        self.lung_only = flag(lung_only, "lung_only")
        settings: dict[str, Any] = {"size": size, "intensity": intensity, "axes": AXES}
        if self.lung_only:
            settings["lung_only"] = True
        if field_of_view != "scan":
            settings |= {"field_of_view": field_of_view, "margin_mm": MARGIN_MM}
        self.key = json.dumps(settings)
        image = grid_image(size, intensity, self.lung_only, field_of_view)
        super().__init__([*image, *load_label(), *crop_to_field(LABEL, field_of_view), resize_label(size)])


class NetworkInput(Compose):
    """From HU to what the network sees: window to [0, 1], then per-slice z-score.

    Args:
        window: (LO, HI) in HU.
        z_score: false leaves the z-score out.
    """

    def __init__(self, window: Sequence[float] = DEFAULT_WINDOW, z_score: bool | str = True) -> None:
        super().__init__([RandWindowd(IMAGE, (window[0], window[1])), *_normalise(z_score)])


class Preprocessing(Compose):
    """`NetworkGrid` and `NetworkInput` at once, for whole scans (1, X, Y, Z).

    Args:
        size: see `NetworkGrid`.
        window: see `NetworkInput`.
        intensity: see `NetworkGrid`.
        label_grid: "network" resizes a label with the image; "scan" leaves it on the scan's own
            grid; "none" reads the image alone, as inference does: MONAI Label's own app wants a
            file under every key that a step reads.
        z_score: see `NetworkInput`.
        lung_only: see `NetworkGrid`.
        field_of_view: see `NetworkGrid`; probabilities that are brought back to the scan are 0
            outside of it.
    """

    def __init__(
        self,
        size: int = 256,
        window: Sequence[float] = DEFAULT_WINDOW,
        intensity: str = "auto",
        label_grid: str = "network",
        z_score: bool | str = True,
        lung_only: bool = False,
        field_of_view: str = "scan",
    ) -> None:
        alone = label_grid == "none"
        grid = grid_image(size, intensity, lung_only, field_of_view, alone)
        label = [] if alone else load_label()
        to_network = [*crop_to_field(LABEL, field_of_view), resize_label(size)] if label_grid == "network" else []
        super().__init__([*grid, *label, *to_network, *NetworkInput(window, z_score).transforms])


class TrainingInput(Compose):
    """`NetworkInput` and the edge label for one slice in HU, with augmentation around it when asked.

    The order is spatial augmentation, window (jittered), intensity augmentation, z-score, edge:
    intensities are disturbed before the z-score that hides shifts and scales, and the edge is that
    of the mask as it then is.

    Args:
        window: (LO, HI) in HU.
        edge_method: see `EdgeLabeld`.
        augment: off in the paper's preset.
        augment_scale: smallest and largest part of the slice's edge length that augmentation shows;
            below 1 it looks closer, as a picture cropped to the lungs does.
        augment_turns: whether augmentation makes quarter turns, for slices of unknown orientation.
        z_score: see `NetworkInput`.
    """

    def __init__(
        self,
        window: Sequence[float] = DEFAULT_WINDOW,
        edge_method: str = "inner",
        augment: bool | str = False,
        augment_scale: Sequence[float] = SCALE,
        augment_turns: bool | str = True,
        z_score: bool | str = True,
    ) -> None:
        spatial = _spatial_augmentation((LABEL,), augment_scale, augment_turns) if flag(augment) else []
        steps = _image_and_labels((window[0], window[1]), spatial, z_score)
        super().__init__([*steps, EdgeLabeld(LABEL, edge_method)])


class ClassPreprocessing(Compose):
    """From paths to what the network of classes sees of a whole scan, (2, size, size, Z), and its label.

    The image goes through the steps of `Preprocessing`. The prior is a mask or a map of
    probabilities ("prior", with "prior_codes" or "prior_scale") and stays in [0, 1]. A label under
    "label" is a multi-class one and becomes a map a class, (3, X, Y, Z). Prior and label are
    resized to the nearest voxel.

    Args:
        size: see `NetworkGrid`.
        window: see `NetworkInput`.
        intensity: see `NetworkGrid`.
        label_grid: see `Preprocessing`.
    """

    def __init__(
        self,
        size: int = 256,
        window: Sequence[float] = DEFAULT_WINDOW,
        intensity: str = "auto",
        label_grid: str = "network",
    ) -> None:
        label: list[Transform] = [*_load(LABEL, label_values), ClassNumbersd(LABEL, allow_missing_keys=True)]
        super().__init__(
            [
                *grid_image(size, intensity, lung_only=False, field_of_view="scan"),
                *load_label(PRIOR),
                resize_label(size, PRIOR),
                *label,
                *([resize_label(size)] if label_grid == "network" else []),
                *NetworkInput(window).transforms,
                *_prior_and_classes(),
            ]
        )


class ClassTrainingInput(Compose):
    """`TrainingInput` for the network of classes: {"image", "prior", "label"} (1, H, W) to (2, H, W) and (3, H, W).

    Spatial augmentation moves the three of them together; intensities are those of the image alone.

    Args:
        window: (LO, HI) in HU.
        augment: off in the paper.
        augment_scale: see `TrainingInput`.
        augment_turns: see `TrainingInput`.
    """

    def __init__(
        self,
        window: Sequence[float] = DEFAULT_WINDOW,
        augment: bool | str = False,
        augment_scale: Sequence[float] = SCALE,
        augment_turns: bool | str = True,
    ) -> None:
        spatial = _spatial_augmentation((PRIOR, LABEL), augment_scale, augment_turns) if flag(augment) else []
        steps = _image_and_labels((window[0], window[1]), spatial)
        super().__init__([*steps, *_prior_and_classes()])


def _prior_and_classes() -> list[Transform]:
    """The prior behind the image as its second channel, and the classes 0, 1, 2 of a label as one map each."""
    return [
        ConcatItemsd((IMAGE, PRIOR), IMAGE),
        DeleteItemsd(PRIOR),
        AsDiscreted(LABEL, to_onehot=len(CLASSES), allow_missing_keys=True),
    ]


def _image_and_labels(
    window: tuple[float, float], spatial: list[Transform], z_score: bool | str = True
) -> list[Transform]:
    """From HU to the z-score of one slice; with spatial augmentation there is one of intensities too."""
    intensity = _intensity_augmentation() if spatial else []
    return [*spatial, RandWindowd(IMAGE, window, jitter=0.15 if spatial else 0.0), *intensity, *_normalise(z_score)]


def _normalise(z_score: bool | str) -> list[Transform]:
    return [SliceZScored(IMAGE)] if flag(z_score, "z_score") else []


def _spatial_augmentation(labels: Sequence[str], scale: Sequence[float], turns: bool | str) -> list[Transform]:
    """Labels move with the image."""
    keys = (IMAGE, *labels)
    try:
        low, high = (float(bound) - 1 for bound in scale)
    except (TypeError, ValueError):
        low, high = 0.0, -1.0
    if not -1 < low <= high:
        raise UserError(f"augment_scale is {scale!r}; expected: [LOW, HIGH] with 0 < LOW <= HIGH, such as [0.8, 1.2]")
    return [
        RandFlipd(keys, prob=0.5, spatial_axis=0),
        RandFlipd(keys, prob=0.5, spatial_axis=1),
        *([RandRotate90d(keys, prob=0.5)] if flag(turns, "augment_turns") else []),
        RandAffined(
            keys,
            prob=0.7,
            rotate_range=0.35,
            scale_range=((low, high), (low, high)),
            translate_range=(12, 12),  # a number alone would move the first axis only
            mode=("bilinear", *("nearest" for _ in labels)),
            padding_mode="border",
        ),
    ]


def _intensity_augmentation() -> list[Transform]:
    return [
        RandGaussianSmoothd(IMAGE, prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0)),
        RandGaussianNoised(IMAGE, prob=0.3, std=0.03),
    ]
