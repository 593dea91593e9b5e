"""Make the axial slices of a scan in HU one by one, without a float copy of the scan."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..io.volume import Scan, canonical
from ..transforms.hounsfield import AIR_HU, HounsfieldMap, parse_intensity, plan_hounsfield, scan_values


class HounsfieldSlices:
    """The axial slices of a scan in HU, in canonical orientation, from the stored values.

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
        self.range, padding = scan_values(self._real, len(self), hounsfield, scan.padding)
        self.map: HounsfieldMap = plan_hounsfield(self.range, intensity, scan.picture, str(scan.path), padding)

    def __len__(self) -> int:
        """Return the number of axial slices."""
        return self.shape[2]

    def __getitem__(self, index: int) -> Tensor:
        """Return slice `index`, counted from inferior: (X, Y) float32 in HU, contiguous."""
        return self.map(self._real(index))

    def rounded(self) -> NDArray[np.int16]:
        """Return all slices rounded to int16, as measures and previews need them.

        There is no copy where the scan is stored so.
        """
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
                volume[..., index] = self[index].round().clamp(-32768, 32767).cpu().numpy()
        return volume

    def _real(self, index: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._scan.real(self._stored[..., index]), dtype=np.float32))
