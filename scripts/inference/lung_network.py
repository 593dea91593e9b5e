"""Find the lungs of a scan by a network whose second target they are."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..anatomy.lungs import Lungs
from ..errors import UserError
from ..io.volume import Scan
from ..transforms.slice_input import SliceInput, resize_slice
from .building import require_lungs, trained_network
from .hounsfield import HounsfieldSlices
from .metadata import metadata_path
from .predictor import Predictor

SUFFIX = ".pt"
"""What tells weights from a mask where either may be given."""
THRESHOLD = 0.5


class LungNetwork:
    """Weights of configs/lungs.yaml, loaded once, that find the lungs of any number of scans.

    Args:
        weights: the weights, with their metadata beside them.
        device: where the network works.

    Raises:
        UserError: if weights or metadata cannot be used, or the network does not find lungs.
    """

    def __init__(self, weights: Path, device: torch.device) -> None:
        self.weights = weights
        network, metadata = trained_network(weights, device)
        require_lungs(metadata, weights)
        self.predictor = Predictor(network, metadata, device)
        self.predictor.inferer.maps = slice(1, 2)
        self.slice_input = SliceInput.from_metadata(metadata)

    def find(self, scan: Scan, slices: HounsfieldSlices) -> Lungs:
        """Find the lungs of a scan; right and left are parted as those of a given mask.

        Raises:
            UserError: if the network's output is not finite, or it finds no lungs.
        """
        mask = np.empty(slices.shape, np.uint8, order="F")
        inferer = self.predictor.inferer
        step = len(slices) if inferer.patches else inferer.batch_size  # patches overlap through the whole scan
        for start in range(0, len(slices), step):
            seen = range(start, min(start + step, len(slices)))
            inputs = torch.stack([self.slice_input(slices[z]) for z in seen], dim=-1)
            logits = self.predictor(inputs[None, None], scan.path)[0, 0]
            for place, z in enumerate(seen):
                map_ = torch.sigmoid(logits[..., place].contiguous())
                mask[..., z] = (resize_slice(map_, slices.shape[:2]) >= THRESHOLD).cpu().numpy()
        if not mask.any():
            raise UserError(f"{scan.path}: {self.weights.name} finds no lungs; expected: a chest CT, or a lung mask")
        lungs = Lungs.from_mask(mask, scan.spacing_lps, scan.voxel_size_known)
        return replace(lungs, notes=[f"The lungs were found by the network {self.weights.name}.", *lungs.notes])


def load_lung_network(weights: Path, device: torch.device) -> LungNetwork:
    """Return the network of some weights; the last one is remembered until its files change."""
    stats = [file.stat() for file in (weights, metadata_path(weights)) if file.is_file()]
    return _loaded(weights, device, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=1)
def _loaded(weights: Path, device: torch.device, stamps: tuple[tuple[int, int], ...]) -> LungNetwork:
    return LungNetwork(weights, device)
