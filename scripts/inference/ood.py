"""How far an image is from what a network was trained on, by the means of its deepest features.

A network says "infection" or not of anything it is shown, of a scan from another world as well. The
channel means of its deepest layer lie near those of the training slices for images of their kind
and move away with other scanners, reconstructions or body parts (Gonzalez et al., "Distance-based
detection of out-of-distribution silent failures for Covid-19 lung lesion segmentation", Medical
Image Analysis 2022, arXiv 2208.03217, with the full covariance; here channel by channel, so that
few patients are enough and the metadata holds what is needed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_SD = 1e-3
"""A channel that is silent on all training slices counts as varying by this share of the largest
deviation."""


def deepest_layer(network: nn.Module, size: int) -> str:
    """Finds the layer with the smallest maps; of several the one with most channels, and of these the last.

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
    """Notes how many pixels and channels a layer's output has, unless it has a single pixel."""
    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[-1] * output.shape[-2] > 1:
        ranks.pop(name, None)  # one that works twice counts where it works last
        ranks[name] = output.shape[-1] * output.shape[-2], -output.shape[1]


class FeatureMeans:
    """Collects the channel means of a layer while a network works.

    Args:
        network: the network.
        layer: name of the layer, see `deepest_layer`.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self._rows: list[Tensor] = []
        network.get_submodule(layer).register_forward_hook(self._keep)

    def take(self) -> Tensor:
        """Returns the means since the last call, (N, C) float64, one row an image that the network saw."""
        rows = torch.cat(self._rows) if self._rows else torch.zeros(0, 0, dtype=torch.float64)
        self._rows = []
        return rows

    def _keep(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._rows.append(output.detach().cpu().double().mean(dim=(2, 3)))


@dataclass(frozen=True)
class Familiarity:
    """What the features of training slices look like, and how far unseen scans of the same kind were from them.

    Attributes:
        layer: whose channel means are looked at.
        mean: their mean over the training slices, a number a channel.
        sd: their standard deviation.
        limit: distance beyond which a scan is called unlike the training data.
    """

    layer: str
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    limit: float

    @classmethod
    def of(cls, layer: str, features: Tensor, limit: float) -> Familiarity:
        """Measures the features (N, C) of training slices; six digits are kept."""
        sd, mean = torch.std_mean(features, dim=0, correction=0)
        sd = sd.clamp(min=SMALLEST_SD * float(sd.max()))
        kept = [tuple(float(f"{value:.6g}") for value in row.tolist()) for row in (mean, sd)]
        return cls(layer, kept[0], kept[1], float(f"{limit:.4g}"))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Familiarity | None:
        """Returns what checkpoint metadata states; None where it states nothing."""
        stated = metadata.get("familiarity")
        return stated and cls(stated["layer"], tuple(stated["mean"]), tuple(stated["sd"]), float(stated["limit"]))

    def as_metadata(self) -> dict[str, Any]:
        """Returns what checkpoint metadata states."""
        return asdict(self)

    def distances(self, features: Tensor) -> Tensor:
        """Root mean square over the channels of the deviation in standard deviations, (N,); about 1 for training."""
        mean, sd = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.sd))
        return ((features - mean) / sd).square().mean(dim=1).sqrt()
