"""Segment one scan, batch by batch of slices; the mask is that of `run inference`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from operator import gt, lt
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..anatomy.field_of_view import Box, find_box, whole
from ..anatomy.lungs import Lungs, segment_lungs
from ..anatomy.outside import KEPT, NO_SIZE, Removed, find_zones, remove_outside, why_kept
from ..anatomy.tissue import Tissues, segment_tissue
from ..errors import UserError
from ..io.volume import Note, Scan, canonical
from ..messages import beside
from ..settings import amount, decision_threshold, usable_device
from ..transforms.slice_input import SliceInput, resize_slice
from ..transforms.small_lesions import without_small_lesions
from ..transforms.through_plane import SliceMeans, neighbour_weights
from .backends.choice import choose_backend
from .building import require_slices, trained_network
from .hounsfield import HounsfieldSlices
from .metadata import CURVE, LESION_FREE
from .ood import KEY, FeatureMeans, OODScore
from .predictor import Predictor
from .tta import ViewAgreement, agreement_percent, view_count

PROBABILITY_STEPS = 255
"""A probability map holds round(255 p) in one byte a voxel."""

WHOLE_SCAN = Note(
    "whole_scan",
    "No plausible lungs were found: the network, which sees nothing but the lungs otherwise, saw all of the scan.",
    "warning",
)

Timer = Callable[[str], AbstractContextManager[object]]
"""Opens a context that takes the time of a stage by its name."""


@dataclass
class Segmentation:
    """The result of a segmentation, in the scan's stored orientation.

    Attributes:
        mask: (X, Y, Z) uint8 in {0, 1}.
        probability: (X, Y, Z) uint8, round(255 p); None unless asked for.
        notes: what was left undone, and warnings about the scan.
        removed: what was removed outside of the body and the lungs.
        ood_score: mean out-of-distribution score of its slices, see `OODScore`; None where the
            metadata state none.
        views_agree_percent: pixels that all views mark, of those that any view marks, in the
            network's grid; None with one view or where nothing is marked.
    """

    mask: NDArray[np.uint8]
    probability: NDArray[np.uint8] | None
    notes: list[Note]
    removed: Removed = KEPT
    ood_score: float | None = None
    views_agree_percent: float | None = None


class Segmenter:
    """A checkpoint, loaded once, that segments any number of scans.

    Args:
        weights: trained weights with their metadata beside them, which state network,
            preprocessing and operating point.
        device: a torch device; None takes CUDA, then MPS, then the CPU.
        threshold: in place of the metadata's.
        smallest_lesion_mm3: in place of the metadata's.
        test_time_flips: in place of the metadata's, see `view_count`.
        backend: what applies the network, see `choose_backend`.
        precision: in which precision, see `choose_backend`.
        keep_outside: keeps marks outside of the body and the lungs, see `remove_outside`.
        loaded: network and metadata of the weights, where the caller has them, see
            `trained_network`.

    Raises:
        UserError: if weights or metadata cannot be used, or a setting makes no sense.

    Example:
        ::

            segmenter = Segmenter("models/model.pt")
            scan = read_scan(Path("scan.nii.gz"))
            mask = segmenter.segment(scan, HounsfieldSlices(scan, segmenter.intensity)).mask
    """

    def __init__(
        self,
        weights: str | Path,
        device: str | None = None,
        threshold: float | None = None,
        smallest_lesion_mm3: float | None = None,
        test_time_flips: bool | int | None = None,
        backend: str = "auto",
        precision: str = "auto",
        keep_outside: bool = False,
        loaded: tuple[nn.Module, dict[str, Any]] | None = None,
    ) -> None:
        self.keep_outside = keep_outside
        self.weights = Path(weights)
        self.device = usable_device(device)
        self.backend = choose_backend(backend, precision, self.device)
        network, self.metadata = loaded or trained_network(weights, self.device)
        require_slices(self.metadata, weights)
        point = self.metadata["operating_point"]
        chosen = point["threshold"] if threshold is None else threshold
        smallest = point["smallest_lesion_mm3"] if smallest_lesion_mm3 is None else smallest_lesion_mm3
        self.threshold = decision_threshold(chosen)
        self.smallest_lesion_mm3 = amount("smallest_lesion_mm3", smallest, "mm3, 0 or more")
        self.ood = OODScore.from_metadata(self.metadata)
        layers = tuple(self.ood.layers) if self.ood else ()
        if unknown := sorted(set(layers) - {name for name, _ in network.named_modules()}):
            found = f"{KEY} names layers that the network has not: {', '.join(unknown)}"
            raise UserError(f"{weights}: {found}; expected: the metadata of these weights")
        # last of what may be refused: OpenVINO compiles here
        applied = self.device, test_time_flips, self.backend, layers, self.threshold
        self.predictor = Predictor(network, self.metadata, *applied)
        self.views = self.predictor.inferer.views
        self.through_plane_mm = float(point["through_plane_mm"])
        self.least_slice_share = float(point["least_slice_share"])
        as_calibrated = self.views == view_count(point["test_time_flips"])
        calibration = self.metadata.get("calibration") or {}
        self.curve = calibration.get(CURVE) if as_calibrated else None
        as_calibrated &= self.threshold == point["threshold"]
        self.least_views_agree_percent = point["least_views_agree_percent"] if as_calibrated else None
        as_calibrated &= self.smallest_lesion_mm3 == point["smallest_lesion_mm3"] and not keep_outside
        self.lesion_free = calibration.get(LESION_FREE) if as_calibrated else None
        self._one_batch = Lock()  # means and agreement are of the batch that is at work
        self._means = self.predictor.inferer.features
        self._agreement = self.predictor.inferer.agreement = ViewAgreement(self.threshold) if self.views > 1 else None
        self.slice_input = SliceInput.from_metadata(self.metadata)
        self.field_of_view = str(self.metadata["preprocessing"]["field_of_view"])
        self.lung_only = bool(self.metadata["preprocessing"]["lung_only"])
        self.intensity = str(self.metadata["preprocessing"]["intensity"])

    def segment(
        self,
        scan: Scan,
        slices: HounsfieldSlices,
        probability: bool = False,
        anatomy: tuple[Tissues, Lungs] | None = None,
        progress: Callable[[int], Any] | None = None,
        timer: Timer = nullcontext,
    ) -> Segmentation:
        """Segment one scan.

        Args:
            scan: the scan.
            slices: its slices in HU.
            probability: whether to keep the probability as well.
            anatomy: tissue and lungs of the scan, where the caller knows them; otherwise they are
                found where they are needed.
            progress: called with the number of slices that were done.
            timer: takes the time of "network" and of "back to grid".

        Returns:
            The mask, in the scan's stored orientation.

        Raises:
            UserError: if the network's output is not finite.
        """
        mask = np.zeros(scan.values.shape, np.uint8, order="F")  # axial slices lie together, as in files
        kept = np.zeros_like(mask) if probability else None
        turned = canonical(mask, scan.affine)
        turned_kept = None if kept is None else canonical(kept, scan.affine)
        anatomy = anatomy or self.find_anatomy(scan, slices)
        box = x, y, z = self.visible_box(scan, slices, anatomy)
        lungs = self.visible_lungs(anatomy)
        size = x.stop - x.start, y.stop - y.start
        scores: list[Tensor] = []
        agreement: list[Tensor] = []
        batch_size = self.predictor.inferer.batch_size
        means = SliceMeans(self._neighbour_weights(scan), z.stop - z.start)
        for start in range(0, len(slices), batch_size):
            batch = range(start, min(start + batch_size, len(slices)))
            seen = range(max(batch.start, z.start), min(batch.stop, z.stop))
            if seen:  # the whole batch then: the same batch gives the same bits
                with timer("network"), self._one_batch:
                    maps = self._probabilities(scan, slices, batch, box, lungs)
                    if self.ood is not None and self._means is not None:
                        scores.append(self.ood(_rows(self._means, batch, seen)))
                    if self._agreement is not None:
                        agreement.append(_rows(self._agreement, batch, seen))
                with timer("back to grid"):
                    for place in seen:
                        for index, mean in means.add(maps[..., place - start].contiguous()):
                            back = resize_slice(mean, size)
                            turned[x, y, z.start + index] = (back >= self.threshold).cpu().numpy()
                            if turned_kept is not None:
                                levels = (back * PROBABILITY_STEPS).round().to(torch.uint8)
                                turned_kept[x, y, z.start + index] = levels.cpu().numpy()
            if progress is not None:
                progress(len(batch))
        with timer("back to grid"):
            removed = self._remove_outside(turned, scan, anatomy)
            mask, notes = self._without_small_lesions(mask, scan)
        score = float(torch.cat(scores).mean()) if scores else None
        agree = agreement_percent(torch.cat(agreement)) if agreement else None
        notes += [WHOLE_SCAN] if self.lung_only and lungs is None else []
        notes += self._ood_warning(score, len(slices)) + (self._border_warning(agree) if mask.any() else [])
        return Segmentation(mask, kept, notes, removed, score, agree)

    def visible_box(self, scan: Scan, slices: HounsfieldSlices, anatomy: tuple[Tissues, Lungs] | None = None) -> Box:
        """Return the box of a scan that the network sees; the arguments are those of `segment`."""
        found = None if self.field_of_view == "scan" else anatomy or self.find_anatomy(scan, slices)
        return whole(slices.shape) if found is None or scan.picture else find_box(*found)

    def visible_lungs(self, anatomy: tuple[Tissues, Lungs] | None) -> Lungs | None:
        """Return the lungs beyond which the network sees nothing; None: it sees its whole box."""
        return anatomy[1] if self.lung_only and anatomy and anatomy[1].plausible else None

    def network_slice(self, slices: HounsfieldSlices, index: int, box: Box, lungs: Lungs | None = None) -> Tensor:
        """Return the network's input of one slice, see `visible_box` and `visible_lungs`."""
        plane = box[:2]
        inside = None if lungs is None else torch.from_numpy(lungs.slab(index)[plane] > 0)
        return self.slice_input(slices[index][plane], inside)

    def needs_anatomy(self, scan: Scan) -> bool:
        """Whether the mask of a scan depends on its tissue and lungs: by input or by removal."""
        removes = scan.voxel_size_known and not self.keep_outside
        return self.lung_only or (not scan.picture and (removes or self.field_of_view == "lungs"))

    def find_anatomy(self, scan: Scan, slices: HounsfieldSlices) -> tuple[Tissues, Lungs] | None:
        """Return tissue and lungs of a scan; None where its mask does not depend on them."""
        if not self.needs_anatomy(scan):
            return None
        seen = segment_tissue(slices.rounded(), scan.spacing_lps)
        return seen, segment_lungs(seen)

    def _remove_outside(self, mask: NDArray[np.uint8], scan: Scan, anatomy: tuple[Tissues, Lungs] | None) -> Removed:
        """Remove marks outside from a mask in LPS, in place."""
        if self.keep_outside:
            return KEPT
        if anatomy is None or not scan.voxel_size_known:
            return NO_SIZE
        return remove_outside(mask, find_zones(*anatomy), why_kept(anatomy[1]))

    def _neighbour_weights(self, scan: Scan) -> list[float]:
        return neighbour_weights(self.through_plane_mm if scan.voxel_size_known else 0.0, scan.spacing_lps[2])

    def _probabilities(
        self, scan: Scan, slices: HounsfieldSlices, batch: range, box: Box, lungs: Lungs | None
    ) -> Tensor:
        """Return the maps of a batch of slices, (S, S, n)."""
        for collected in (self._means, self._agreement):
            if collected is not None:
                collected.take()  # what a scan that failed half-way has left
        inputs = torch.stack([self.network_slice(slices, index, box, lungs) for index in batch], dim=-1)
        return torch.sigmoid(self.predictor(inputs[None, None], scan.path))[0, 0]

    def _ood_warning(self, score: float | None, slices: int) -> list[Note]:
        if self.ood is None or score is None or score <= (limit := self.ood.limit(slices)):
            return []
        found, most = beside(score, limit, gt, "{:.{}f}".format, 2)
        text = (
            f"The scan differs from the training data: its out-of-distribution score is {found}, at most "
            f"{most} is usual. Do not trust the mask without looking at it."
        )
        return [Note("unfamiliar", text, "warning")]

    def _border_warning(self, agree: float | None) -> list[Note]:
        least = self.least_views_agree_percent
        if least is None or agree is None or agree >= least:
            return []
        found, usual = beside(agree, least, lt, "{:.{}f} %".format, 1)
        text = (
            f"The border of the opacities is unsure: mirrored views of the scan mark the same pixels for {found} "
            f"of what any of them marks, at least {usual} is usual. Look at the outlines."
        )
        return [Note("border_unsure", text, "warning")]

    def _without_small_lesions(self, mask: NDArray[np.uint8], scan: Scan) -> tuple[NDArray[np.uint8], list[Note]]:
        if self.smallest_lesion_mm3 <= 0:
            return mask, []
        if not scan.voxel_size_known:
            text = f"the voxel size is unknown, so lesions below {self.smallest_lesion_mm3:g} mm3 were not left out"
            return mask, [Note("small_lesions_kept", text, "assumption")]
        return without_small_lesions(mask, scan.voxel_mm3, self.smallest_lesion_mm3), []


def _rows(collected: FeatureMeans | ViewAgreement, batch: range, seen: range) -> Tensor:
    """Return what was collected of the slices in the box, one row a slice."""
    return collected.take()[seen.start - batch.start : seen.stop - batch.start]
