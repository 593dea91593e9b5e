"""Out-of-distribution (OOD) score of a scan, by the channel means of a network's deep features.

A network answers "infection" or not whatever it is shown. The channel means of its deep layers lie
near those of some training slices for scans of their kind, and move away with other scanners,
reconstructions or body parts (Gonzalez et al., "Distance-based detection of out-of-distribution
silent failures for Covid-19 lung lesion segmentation", Medical Image Analysis 2022, arXiv
2208.03217). They use one layer and one Gaussian. Here several layers and several centres count,
since slices of apex, hilum and base differ from each other, too. Each channel counts by itself, so
that few patients are enough and the metadata hold what is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError

KEY = "familiarity"
"""Where checkpoint metadata and reports hold it, under the name of earlier versions."""

SMALLEST_SD = 1e-3
"""Lowest standard deviation of a channel, as a fraction of the largest of its layer, or of 1."""

CENTRES = 16
LAYERS = 3
"""How many centres and layers separate unseen scans from others: docs/measure_ood.py."""


@dataclass(frozen=True)
class OODScore:
    """Statistics of training features, by which images get their out-of-distribution score.

    Attributes:
        layers: whose channel means are compared, with the number of their channels.
        mean: their mean over the training slices, one number a channel, layer by layer.
        sd: their standard deviation.
        centres: of clusters of the training slices, z-scores, one number a channel each.
        threshold: scans with a higher score are reported as out of distribution.
        volume_threshold: the same for volumes, whose mean over slices varies less than the score of
            one slice; None, as in earlier metadata: `threshold`.
    """

    layers: Mapping[str, int]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    centres: tuple[tuple[float, ...], ...]
    threshold: float
    volume_threshold: float | None = None

    @classmethod
    def of(
        cls, layers: Mapping[str, int], features: Tensor, threshold: float, volume_threshold: float | None = None
    ) -> OODScore:
        """Measure the features (N, C) of training slices; six digits are kept, of centres four."""
        sd, mean = torch.std_mean(features, dim=0, correction=0)
        of_layers = sd.split(list(layers.values()))
        sd = torch.cat([part.clamp(min=SMALLEST_SD * (float(part.max()) or 1)) for part in of_layers])
        weights = channel_weights(layers)
        centres = _centres((features - mean) / sd * weights) / weights
        volumes = volume_threshold and float(f"{volume_threshold:.4g}")
        limits = float(f"{threshold:.4g}"), volumes
        return cls(dict(layers), _digits(mean, 6), _digits(sd, 6), tuple(_digits(row, 4) for row in centres), *limits)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> OODScore | None:
        """Return what checkpoint metadata state; None where they state nothing.

        Those of versions before 0.25 name one layer, whose mean was the only centre.
        """
        if not (stated := metadata.get(KEY)):
            return None
        mean = tuple(stated["mean"])
        named = stated.get("layers") or [{"name": stated["layer"], "channels": len(mean)}]
        layers = {one["name"]: one["channels"] for one in named}
        centres = stated.get("centres") or [[0.0] * len(mean)]
        limits = float(stated["limit"]), stated.get("limit_volumes")
        return cls(layers, mean, tuple(stated["sd"]), tuple(map(tuple, centres)), *limits)

    def as_metadata(self) -> dict[str, Any]:
        """Return what checkpoint metadata hold under `KEY`."""
        limits = {"limit": self.threshold, "limit_volumes": self.volume_threshold}
        layers = [{"name": name, "channels": count} for name, count in self.layers.items()]  # their order counts
        return {"layers": layers, "mean": self.mean, "sd": self.sd, "centres": self.centres, **limits}

    def limit(self, slices: int) -> float:
        """Return the threshold for a scan of so many slices: one alone, or a volume."""
        return self.threshold if slices == 1 or self.volume_threshold is None else self.volume_threshold

    def __call__(self, features: Tensor) -> Tensor:
        """Score features (N, C): the distance to the nearest centre, (N,).

        It is the root mean square of the differences of z-scores, over the channels of a layer and
        then over the layers: mostly below 1 for training slices.

        Raises:
            UserError: if the layers have another number of channels than the metadata state.
        """
        mean, scale, centres = self._tensors
        if features.shape[-1] != len(mean):
            found = f"{features.shape[-1]} channels in {', '.join(self.layers)}, {len(mean)} in {KEY} of the metadata"
            raise UserError(f"{found}; expected: the metadata of these weights")
        rows = (features.double() - mean) * scale
        return torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=-1)

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, what turns a difference from it into a weighted z-score, and the centres."""
        mean, sd, centres = (torch.tensor(kept, dtype=torch.float64) for kept in (self.mean, self.sd, self.centres))
        weights = channel_weights(self.layers)
        return mean, weights / sd, centres * weights


def channel_weights(layers: Mapping[str, int]) -> Tensor:
    """Return what makes the sum of squares a mean over channels, then over layers, (C,)."""
    return torch.cat(
        [torch.full((count,), 1 / math.sqrt(count * len(layers)), dtype=torch.float64) for count in layers.values()]
    )


def _centres(rows: Tensor) -> Tensor:
    """Return the centres of the clusters of rows (N, C), the same in every call, (K, C)."""
    from scipy.cluster.vq import kmeans2  # only where weights are calibrated

    known = np.unique(rows.cpu().numpy().round(9), axis=0)
    found, _ = kmeans2(known, min(CENTRES, len(known)), iter=50, minit="++", seed=0)
    return torch.from_numpy(np.unique(found, axis=0))


def _digits(values: Tensor, digits: int) -> tuple[float, ...]:
    return tuple(float(f"{value:.{digits}g}") for value in values.tolist())


class FeatureMeans:
    """Collect the channel means of layers while a network works, see `average_over_flips`."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, means: Tensor) -> None:
        """Add the means (B, C) of some images."""
        self._rows.append(means.detach().cpu().double())

    def take(self) -> Tensor:
        """Return the means since the last call, (N, C) float64, one row per image."""
        rows = torch.cat(self._rows) if self._rows else torch.zeros(0, 0, dtype=torch.float64)
        self._rows = []
        return rows


def deep_layers(network: nn.Module, size: int) -> dict[str, int]:
    """Find the deepest layer, and the deepest ones of the next larger maps on the way to it.

    The deepest has the smallest maps, then the most channels, then the last place. Of larger maps
    those count that are made before, again those with the most channels, then the last place.

    Args:
        network: a network for slices, in evaluation mode.
        size: edge length of its input.

    Returns:
        At most `LAYERS` names for `nn.Module.get_submodule`, with the number of channels.
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
    names = list(ranks)
    way = names[: names.index(_last_of(ranks, names)) + 1]
    by_pixels: dict[int, list[str]] = {}
    for name in way:
        by_pixels.setdefault(ranks[name][0], []).append(name)
    chosen = [_last_of(ranks, by_pixels[pixels]) for pixels in sorted(by_pixels)[:LAYERS]]
    return {name: -ranks[name][1] for name in chosen}


def _last_of(ranks: Mapping[str, tuple[int, int]], names: list[str]) -> str:
    """Return the last of the names with the lowest rank."""
    lowest = min(ranks[name] for name in names)
    return [name for name in names if ranks[name] == lowest][-1]


def _note_rank(ranks: dict[str, tuple[int, int]], name: str, output: Any) -> None:
    """Note how many pixels and channels a layer's output has, unless it has a single pixel."""
    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[-1] * output.shape[-2] > 1:
        ranks.pop(name, None)  # one that works twice counts where it works last
        ranks[name] = output.shape[-1] * output.shape[-2], -output.shape[1]
