"""The loss of Inf-Net: cross-entropy and IoU that weigh pixels by their neighbourhood.

Fan et al. 2020 (arXiv 2004.14133), section III-D; the weights are those of Wei, Wang, Huang:
"F3Net: Fusion, feedback and focus for salient object detection", AAAI 2020 (arXiv 1911.11445),
equations 4 to 8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import flag
from .checks import check_maps

NEIGHBOURHOOD = 31  # pixels on a side
BOUNDARY_WEIGHT = 5.0


def structure_loss(logits: Tensor, target: Tensor, legacy_bce: bool = False) -> Tensor:
    """Return weighted cross-entropy plus weighted IoU loss, the mean over images and channels.

    A pixel's weight is 1 + 5 * |mean of the target in the 31 x 31 pixels around it - target|, 0
    outside the image: 1 inside large areas, up to 6 at boundaries. Sums run over each image alone.
    Pixels whose target is below 0 are unknown: they weigh nothing, and their neighbours see them as
    they see the outside.

    Args:
        logits: (B, C, H, W), float32.
        target: the same shape, range [0, 1] or below 0.
        legacy_bce: the mean cross-entropy of the whole batch without weights, which the published
            code computes: it names the reduction in a way that PyTorch reads as "mean", and the
            weights cancel.
    """
    known = (target >= 0).to(target)
    target = target * known
    around = F.avg_pool2d(target, NEIGHBOURHOOD, stride=1, padding=NEIGHBOURHOOD // 2)
    weight = (1 + BOUNDARY_WEIGHT * (around - target).abs()) * known
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = torch.sigmoid(logits)
    axes = (2, 3)
    both = (weight * probability * target).sum(dim=axes)
    either = (weight * (probability + target)).sum(dim=axes) - both
    iou_loss = 1 - (both + 1) / (either + 1)
    return (weighted_mean(cross_entropy, known if legacy_bce else weight) + iou_loss).mean()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean over the pixels of each image, (B, C); 0 where nothing has a weight.

    Args:
        values: (B, C, H, W).
        weight: the same shape, 0 or more.
    """
    axes = (2, 3)
    return (weight * values).sum(dim=axes) / weight.sum(dim=axes).clamp(min=1e-5)


class InfNetLoss(nn.Module):
    """L = sum of the structure losses of main map and mask heads + cross-entropy of the edge heads.

    All have the weight 1. The maps of the edge heads follow the main map, those of the mask heads
    come last. For Inf-Net the main map is S_3, the edge head S_e, the mask heads S_g, S_5, S_4. See
    `structure_loss` for `legacy_bce`.
    """

    leaves_out_unknown = True

    def __init__(self, edge_heads: int = 1, mask_heads: int = 3, legacy_bce: bool | str = False) -> None:
        super().__init__()
        self.edge_heads = edge_heads
        self.mask_heads = mask_heads
        self.legacy_bce = flag(legacy_bce)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar for logits of any type; ValueError for other shapes.

        Args:
            logits: (B, 1 + edge_heads + mask_heads, H, W) from training mode, or (B, 1, H, W), of
                which only the structure loss of the main map can be said.
            label: (B, 2, H, W), range [0, 1]: mask, edge. Values between are those of resized
                labels. Pixels whose mask is below 0 are unknown and left out.
        """
        heads = self.edge_heads + self.mask_heads
        check_maps(logits, label, heads)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            logits = logits.float()
            mask, edge = label.float().split(1, dim=1)
            main = logits[:, :1]
            if logits.shape[1] == 1:
                return structure_loss(main, mask, self.legacy_bce)
            edge_maps, mask_maps = logits[:, 1:].split([self.edge_heads, self.mask_heads], dim=1)
            maps = torch.cat([main, mask_maps], dim=1)
            loss = maps.shape[1] * structure_loss(maps, mask.expand_as(maps), self.legacy_bce)
            if self.edge_heads:
                targets = edge.expand_as(edge_maps)
                each = F.binary_cross_entropy_with_logits(edge_maps, targets, reduction="none")
                loss = loss + self.edge_heads * weighted_mean(each, (mask >= 0).float().expand_as(each)).mean()
            return loss
