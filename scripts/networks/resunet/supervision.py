"""Edge and semantic supervision (ESM, ASSM): a one-channel head on every supervised stage.

Hu et al., "Deep co-supervision and attention fusion strategy for automatic COVID-19 lung infection
segmentation on CT images", Pattern Recognition 2022, section 3.3 and figure 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SupervisionHeads(nn.Module):
    """One 1x1 convolution to one channel per supervised stage, resized to the input.

    The paper resizes a stage to the size of the input and then reduces it to one channel. Both
    steps are linear and the weights of bilinear interpolation sum to one, so they can change
    places: the convolution comes first here, with the same result at a 64th to a 512th of the cost.
    The heads of ESM (target: edge) and ASSM (target: mask) differ only in their targets. Stages are
    counted from 1, finest first.
    """

    def __init__(self, in_channels: Sequence[int], stages: Sequence[int]) -> None:
        super().__init__()
        self.stages = list(stages)
        self.heads = nn.ModuleList(nn.Conv2d(in_channels[stage - 1], 1, kernel_size=1) for stage in stages)

    def forward(self, features: list[Tensor], size: list[int]) -> Tensor:
        """Map five stages (B, c_i, H_i, W_i), finest first, to logits (B, len(stages), *size)."""
        maps: list[Tensor] = []
        for index, head in enumerate(self.heads):  # TorchScript does not zip a list with modules
            logits = head(features[self.stages[index] - 1])  # (B, 1, H_i, W_i)
            maps.append(F.interpolate(logits, size=size, mode="bilinear", align_corners=False))
        return torch.cat(maps, dim=1)
