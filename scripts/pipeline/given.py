"""What the user gives beside a scan: lungs, lobes, the report of an earlier scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..anatomy.lobes import lungs_of
from ..anatomy.lungs import Lungs
from ..inference.hounsfield import HounsfieldSlices
from ..io.reading import scan_files
from ..io.volume import Scan
from .lobe_masks import find_lobes, lobe_files, read_lobe_mask
from .lung_masks import find_mask, lung_files, own_lungs
from .priors import find_prior


@dataclass(frozen=True)
class Given:
    """Files of one case beside its scan.

    Attributes:
        lungs: the lung mask, or weights that find lungs; None: that of the lobes, else found in the
            scan by thresholds.
        lobes: the lobe mask, a file or a folder of single masks; None: nothing is said of lobes.
        prior: the report of an earlier scan; None: no change is described.
    """

    lungs: Path | None = None
    lobes: Path | None = None
    prior: Path | None = None

    @classmethod
    def find(cls, lungs: Path | None, lobes: Path | None, prior: Path | None, name: str) -> Given:
        """Find the files of the case `name`, of which each path may hold those of several.

        Raises:
            UserError: if a path holds none for this case.
        """
        return cls(
            lungs and find_mask(lungs, name),
            lobes and find_lobes(lobes, name),
            prior and find_prior(prior, name),
        )

    def files(self) -> list[Path]:
        """Return all files, headers and voxels."""
        files = lung_files(self.lungs) if self.lungs else []
        if self.lobes:
            files += lobe_files(self.lobes) if self.lobes.is_dir() else scan_files(self.lobes)
        return files + ([self.prior] if self.prior else [])

    def read_masks(
        self, scan: Scan, slices: HounsfieldSlices, device: torch.device
    ) -> tuple[Lungs | None, NDArray[np.uint8] | None]:
        """Return lungs and lobes, None where they are not given; the lobes make up the lungs.

        Args:
            scan: the scan that they belong to.
            slices: its values, in which a network finds lungs.
            device: of that network.

        Raises:
            UserError: see `own_lungs` and `read_lobe_mask`.
        """
        lobes = read_lobe_mask(self.lobes, scan) if self.lobes else None
        if self.lungs:
            return own_lungs(self.lungs, scan, slices, device), lobes
        if lobes is None:
            return None, None
        return Lungs.from_codes(lungs_of(lobes), scan.spacing_lps, scan.voxel_size_known), lobes
