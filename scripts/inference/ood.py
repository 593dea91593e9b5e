"""Out-of-distribution (OOD) score of a scan, by the channel means of a network's deepest features.

A network answers "infection" or not whatever it is shown. The channel means of its deepest layer
lie near those of the training slices for scans of their kind, and move away with other scanners,
reconstructions or body parts (Gonzalez et al., "Distance-based detection of out-of-distribution
silent failures for Covid-19 lung lesion segmentation", Medical Image Analysis 2022, arXiv
2208.03217). They use the full covariance. Here each channel counts by itself, so that few patients
are enough and the metadata hold what is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KEY = "familiarity"
"""Where checkpoint metadata and reports hold it, under the name of earlier versions."""

SMALLEST_SD = 1e-3
"""Lowest standard deviation of a channel, as a fraction of the largest."""


@dataclass(frozen=True)
class OODScore:
    """Statistics of training features, by which images get their out-of-distribution score.

    Attributes:
        layer: whose channel means are compared.
        mean: their mean over the training slices, one number a channel.
        sd: their standard deviation.
        threshold: scans with a higher score are reported as out of distribution.
        volume_threshold: the same for volumes, whose mean over slices varies less than the score of
            a single picture; None, as in earlier metadata: `threshold`.
    """

    layer: str
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    threshold: float
    volume_threshold: float | None = None

    @classmethod
    def of(cls, layer: str, features: Tensor, threshold: float, volume_threshold: float | None = None) -> OODScore:
        """Measure the features (N, C) of training slices; six digits are kept."""
        sd, mean = torch.std_mean(features, dim=0, correction=0)
        sd = sd.clamp(min=SMALLEST_SD * float(sd.max()))
        kept = [tuple(float(f"{value:.6g}") for value in row.tolist()) for row in (mean, sd)]
        volumes = volume_threshold and float(f"{volume_threshold:.4g}")
        return cls(layer, kept[0], kept[1], float(f"{threshold:.4g}"), volumes)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> OODScore | None:
        """Return what checkpoint metadata state; None where they state nothing."""
        if not (stated := metadata.get(KEY)):
            return None
        limits = float(stated["limit"]), stated.get("limit_volumes")
        return cls(stated["layer"], tuple(stated["mean"]), tuple(stated["sd"]), *limits)

    def as_metadata(self) -> dict[str, Any]:
        """Return what checkpoint metadata hold under `KEY`."""
        limits = {"limit": self.threshold, "limit_volumes": self.volume_threshold}
        return {"layer": self.layer, "mean": self.mean, "sd": self.sd, **limits}

    def limit(self, picture: bool) -> float:
        """Return the threshold for a 2-D picture or a volume."""
        return self.threshold if picture or self.volume_threshold is None else self.volume_threshold

    def __call__(self, features: Tensor) -> Tensor:
        """Score features (..., C): root mean square over the channels of their z-scores, (...).

        It is about 1 for training slices.
        """
        mean, sd = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.sd))
        return ((features - mean) / sd).square().mean(dim=-1).sqrt()


def channel_means(maps: Tensor) -> Tensor:
    """Return the channel means (B, C) of a layer's output (B, C, H, W), float64 on the CPU."""
    return maps.detach().cpu().double().mean(dim=(2, 3))


class FeatureMeans:
    """Collect the channel means of a layer while a network works, see `average_over_flips`."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, means: Tensor) -> None:
        """Add the means of some images, see `channel_means`."""
        self._rows.append(means)

    def take(self) -> Tensor:
        """Return the means since the last call, (N, C) float64, one row per image."""
        rows = torch.cat(self._rows) if self._rows else torch.zeros(0, 0, dtype=torch.float64)
        self._rows = []
        return rows


def deepest_layer(network: nn.Module, size: int) -> str:
    """Find the layer with the smallest maps, then the most channels, then the last place.

    Args:
        network: a network for slices, in evaluation mode.
        size: edge length of its input.

    Returns:
        The layer's name, for `nn.Module.get_submodule`.
    """
    ranks: dict[str, tuple[int, int]] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: _note_rank(ranks, name, output))
        for name, layer in network.named_modules()
        if name
    ]
    parameter = next(network.parameters())
    with torch.inference_mode():
        network(torch.zeros(1, 1, size, size, device=parameter.device))
    for hook in hooks:
        hook.remove()
    first = min(ranks.values())
    return [name for name, rank in ranks.items() if rank == first][-1]


def _note_rank(ranks: dict[str, tuple[int, int]], name: str, output: Any) -> None:
    """Note how many pixels and channels a layer's output has, unless it has a single pixel."""
    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[-1] * output.shape[-2] > 1:
        ranks.pop(name, None)  # one that works twice counts where it works last
        ranks[name] = output.shape[-1] * output.shape[-2], -output.shape[1]
