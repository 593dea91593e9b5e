"""The network on one scan, slice by slice: the mask of `run inference`, without ever holding the scan as floats."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..anatomy.field_of_view import Box, find_box, whole
from ..anatomy.lungs import Lungs, segment_lungs
from ..anatomy.tissue import Tissues, segment_tissue
from ..finite import check_maps
from ..io.volume import Note, Scan, canonical
from ..settings import flag, number, usable_device
from ..transforms.geometry import resize_slice
from ..transforms.intensity import (
    AIR_HU,
    HounsfieldMap,
    parse_intensity,
    plan_hounsfield,
    scale_window,
    watch_values,
    z_score,
)
from ..transforms.postprocessing import without_small_lesions
from .metadata import require_slices, trained_network
from .ood import Familiarity, FeatureMeans
from .tta import average_over_flips

SLICES_AT_ONCE = 8
"""The batch of configs/inference.yaml: the same batch gives the same bits."""

PROBABILITY_STEPS = 255
"""A probability map holds round(255 p) in one byte a voxel."""


@dataclass
class Segmentation:
    """What the network said about a scan, in the scan's stored orientation.

    Attributes:
        mask: (X, Y, Z) uint8 in {0, 1}.
        probability: (X, Y, Z) uint8, round(255 p); None unless asked for.
        notes: what was left undone, and what is strange about the scan.
        distance: how far the scan is from the training data, see `Familiarity`; None where the
            metadata cannot tell.
    """

    mask: NDArray[np.uint8]
    probability: NDArray[np.uint8] | None
    notes: list[Note]
    distance: float | None = None


class HounsfieldSlices:
    """The axial slices of a scan in HU, in canonical orientation, made one by one from the stored values.

    Args:
        scan: the scan.
        intensity: see `plan_hounsfield`.

    Raises:
        UserError: if the values cannot be HU.
    """

    def __init__(self, scan: Scan, intensity: str = "auto") -> None:
        self._stored = canonical(scan.values, scan.affine)
        self._scan = scan
        self.shape: tuple[int, int, int] = self._stored.shape
        hounsfield = not scan.picture and isinstance(parse_intensity(intensity), str)
        self.range, padding = watch_values(self._real, len(self), hounsfield, scan.padding)
        self.map: HounsfieldMap = plan_hounsfield(self.range, intensity, scan.picture, str(scan.path), padding)

    def __len__(self) -> int:
        """Returns the number of axial slices."""
        return self.shape[2]

    def __getitem__(self, index: int) -> Tensor:
        """Returns slice `index`, counted from inferior: (X, Y) float32 in HU, contiguous."""
        return self.map(self._real(index))

    def rounded(self) -> NDArray[np.int16]:
        """Returns all of them rounded to int16, for what is measured and drawn; no copy where they are stored so."""
        scaling = self._scan.slope, self._scan.intercept
        hounsfield = self._stored.dtype == np.int16 and scaling == (1.0, 0.0) and self.map.window is None
        hounsfield = hounsfield and self.map.padding is None
        if hounsfield and self.range.low >= AIR_HU:
            return self._stored
        volume = np.empty(self.shape, np.int16, order="F")
        for index in range(len(self)):
            if hounsfield:
                np.maximum(self._stored[..., index], np.int16(AIR_HU), out=volume[..., index])
            else:
                volume[..., index] = self[index].round().clamp(-32768, 32767).numpy()
        return volume

    def _real(self, index: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._scan.real(self._stored[..., index]), dtype=np.float32))


def slice_input(hu: Tensor, size: int, window: tuple[float, float], normalised: bool = True) -> Tensor:
    """Returns one slice (X, Y) in HU as networks see it, (size, size): the steps of `Preprocessing`."""
    windowed = scale_window(resize_slice(hu, (size, size)), *window)
    return z_score(windowed) if normalised else windowed


class Segmenter:
    """A checkpoint, loaded once, that segments any number of scans.

    Args:
        weights: trained weights with their metadata beside them; network, preprocessing and
            operating point are the metadata's.
        device: a torch device; None takes CUDA, then MPS, then the CPU.
        threshold: in place of the metadata's.
        smallest_lesion_mm3: in place of the metadata's.
        test_time_flips: in place of the metadata's, see `average_over_flips`.

    Raises:
        UserError: if weights or metadata cannot be used, or a setting makes no sense.

    Example:
        ::

            segmenter = Segmenter("models/model.pt")
            scan = read_scan(Path("scan.nii.gz"))
            mask = segmenter.segment(scan, HounsfieldSlices(scan)).mask
    """

    def __init__(
        self,
        weights: str | Path,
        device: str | None = None,
        threshold: float | None = None,
        smallest_lesion_mm3: float | None = None,
        test_time_flips: bool | None = None,
    ) -> None:
        self.weights = Path(weights)
        self.device = usable_device(device)
        self.network, self.metadata = trained_network(weights, self.device)
        require_slices(self.metadata, weights)
        point = self.metadata["operating_point"]
        chosen = point["threshold"] if threshold is None else threshold
        smallest = point["smallest_lesion_mm3"] if smallest_lesion_mm3 is None else smallest_lesion_mm3
        self.threshold = number("threshold", chosen, "a probability between 0 and 1", lambda value: 0 < value < 1)
        self.smallest_lesion_mm3 = number("smallest_lesion_mm3", smallest, "mm3, 0 or more", lambda value: value >= 0)
        flips = point["test_time_flips"] if test_time_flips is None else test_time_flips
        self.test_time_flips = flag(flips, "test_time_flips")
        self.least_slice_share = float(point["least_slice_share"])
        self.familiarity = Familiarity.from_metadata(self.metadata)
        self._means = FeatureMeans(self.network, self.familiarity.layer) if self.familiarity else None
        self.size = int(self.metadata["preprocessing"]["size"])
        low, high = self.metadata["preprocessing"]["window"]
        self.window = float(low), float(high)
        self.z_score = bool(self.metadata["preprocessing"]["z_score"])
        self.field_of_view = str(self.metadata["preprocessing"]["field_of_view"])

    def segment(
        self,
        scan: Scan,
        slices: HounsfieldSlices,
        probability: bool = False,
        anatomy: tuple[Tissues, Lungs] | None = None,
        progress: Callable[[int], Any] | None = None,
        watch: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> Segmentation:
        """Segments one scan.

        Args:
            scan: the scan.
            slices: its slices in HU.
            probability: whether to keep the probability as well.
            anatomy: what is seen of the scan and its lungs, where the caller knows them; weights
                that look at the box around the lungs find them otherwise.
            progress: called with the number of slices that were done.
            watch: takes the time of a stage: "network" or "back to grid".

        Returns:
            The mask, in the scan's stored orientation.

        Raises:
            UserError: if a probability is not finite.
        """
        shape = scan.values.shape
        if self._means is not None:
            self._means.take()  # what a scan that failed half-way has left
        features: list[Tensor] = []
        mask = np.zeros(shape, np.uint8)
        kept = np.zeros(shape, np.uint8) if probability else None
        turned = canonical(mask, scan.affine)
        turned_kept = None if kept is None else canonical(kept, scan.affine)
        x, y, z = self.looked_at(scan, slices, anatomy)
        size = x.stop - x.start, y.stop - y.start
        for start in range(0, len(slices), SLICES_AT_ONCE):
            stop = min(start + SLICES_AT_ONCE, len(slices))
            inside = range(max(start, z.start), min(stop, z.stop))
            if inside:  # the whole batch then: the same batch gives the same bits
                with watch("network"):
                    maps = self._probabilities([slices[index][x, y] for index in range(start, stop)])
                check_maps(maps, scan.path)
                if self._means is not None:  # several rows a slice where it was mirrored
                    rows = self._means.take().unflatten(0, (-1, stop - start))
                    features.append(rows[:, inside.start - start : inside.stop - start].flatten(0, 1))
                with watch("back to grid"):
                    for index in inside:
                        back = resize_slice(maps[index - start, 0].contiguous(), size)
                        turned[x, y, index] = (back >= self.threshold).numpy()
                        if turned_kept is not None:
                            turned_kept[x, y, index] = (back * PROBABILITY_STEPS).round().to(torch.uint8).numpy()
            if progress is not None:
                progress(stop - start)
        with watch("back to grid"):
            mask, notes = self._without_small_lesions(mask, scan)
        distance = self._distance(features)
        return Segmentation(mask, kept, notes + self._strange(distance), distance)

    def looked_at(self, scan: Scan, slices: HounsfieldSlices, anatomy: tuple[Tissues, Lungs] | None = None) -> Box:
        """Returns what of a scan the network sees, as `FindBoxd` finds it; the arguments are those of `segment`."""
        if self.field_of_view == "scan" or scan.picture:
            return whole(slices.shape)
        if anatomy is None:
            seen = segment_tissue(slices.rounded(), scan.spacing_lps)
            anatomy = seen, segment_lungs(seen)
        return find_box(*anatomy)

    def _distance(self, features: list[Tensor]) -> float | None:
        """Mean over the slices that were looked at."""
        if self.familiarity is None or not features:
            return None
        return float(self.familiarity.distances(torch.cat(features)).mean())

    def _strange(self, distance: float | None) -> list[Note]:
        if self.familiarity is None or distance is None or distance <= self.familiarity.limit:
            return []
        text = (
            f"The scan is unlike what the network was trained on: its features are {distance:.1f} from theirs, "
            f"{self.familiarity.limit:.1f} is usual at most. Do not trust the mask without looking at it."
        )
        return [Note("unfamiliar", text, "warning")]

    def _probabilities(self, batch: list[Tensor]) -> Tensor:
        """Probabilities (N, 1, size, size) of some slices in HU."""
        inputs = torch.stack([self.network_input(one) for one in batch])[:, None]
        with torch.inference_mode():
            inputs = inputs.to(self.device)
            logits = average_over_flips(self.network, inputs) if self.test_time_flips else self.network(inputs)
            return torch.sigmoid(logits.float()).cpu()

    def network_input(self, hu: Tensor) -> Tensor:
        """Returns what the network sees of one slice (X, Y) in HU, (size, size)."""
        return slice_input(hu, self.size, self.window, self.z_score)

    def _without_small_lesions(self, mask: NDArray[np.uint8], scan: Scan) -> tuple[NDArray[np.uint8], list[Note]]:
        if self.smallest_lesion_mm3 <= 0:
            return mask, []
        if not scan.voxel_size_known:
            text = f"the voxel size is unknown, so lesions below {self.smallest_lesion_mm3:g} mm3 were not left out"
            return mask, [Note("small_lesions_kept", text, "assumption")]
        return without_small_lesions(mask, scan.voxel_mm3, self.smallest_lesion_mm3), []
