"""Binary cross entropy and Dice with deep supervision, for the 3-D network."""

import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch import Tensor, nn

from ..errors import SettingError
from .checks import check_sizes

MAIN_WEIGHT = 0.5
NEVER = -100.0
"""A logit whose probability is 0 in float32."""


class DeepDiceBCELoss(nn.Module):
    """L = 0.5 BCE + Dice loss, of the main map and of each head.

    The main map has the weight 0.5, all heads together 0.5.

    The Dice loss is soft, 1 - (2 sum(p g) + 1e-5) / (sum(p) + sum(g) + 1e-5) with sums over the
    batch of this process (a Dice that is summed over several processes is that of
    `CoSupervisionLoss` only), p = sigmoid(logits); BCE is the mean over the voxels.

    Args:
        mask_heads: number of heads, whose maps follow the main map.
    """

    def __init__(self, mask_heads: int = 2) -> None:
        super().__init__()
        self.mask_heads = mask_heads
        loss = DiceCELoss(sigmoid=True, batch=True, lambda_dice=1.0, lambda_ce=0.5, smooth_nr=1e-5, smooth_dr=1e-5)
        weight = (1 - MAIN_WEIGHT) / max(mask_heads, 1)
        self.loss = DeepSupervisionLoss(loss, weights=[MAIN_WEIGHT, *[weight] * mask_heads])

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar for logits of any type; ValueError for other shapes.

        Args:
            logits: (B, 1 + mask_heads, ...) from training mode, or (B, 1, ...), whose loss has the
                weight 1.
            label: (B, C, ...), values in {0, 1}; the first channel is the mask.
        """
        if logits.shape[1] not in (1, 1 + self.mask_heads):
            raise SettingError(f"logits have {logits.shape[1]} channels; expected: 1 or {1 + self.mask_heads}")
        check_sizes(logits, label)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            mask = label[:, :1].float()
            maps = logits.float().split(1, dim=1)
            loss: Tensor = self.loss(list(maps) if len(maps) > 1 else maps[0], mask)
            return loss


class InfectionAndLungsLoss(nn.Module):
    """Add the loss of the lungs, a second target of the same network, to `DeepDiceBCELoss`.

    The lungs have no heads. Where they are unknown (label below 0) they count as found right: in
    the Dice loss such a voxel counts nothing, in the mean of the BCE 0.

    Args:
        mask_heads: number of heads of infection, whose maps follow those of infection and lungs.
        lung_weight: weight of the lungs beside infection.
    """

    def __init__(self, mask_heads: int = 2, lung_weight: float = 1.0) -> None:
        super().__init__()
        self.infection, self.lungs = DeepDiceBCELoss(mask_heads), DeepDiceBCELoss(0)
        self.lung_weight = lung_weight

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar for logits of any type; ValueError for other shapes.

        Args:
            logits: (B, 2 + mask_heads, ...) from training mode, or (B, 2, ...): infection, lungs,
                heads.
            label: (B, 2, ...): infection in {0, 1}, lungs in {0, 1} or below 0.
        """
        if label.shape[1] != 2:
            raise SettingError(f"labels have {label.shape[1]} channels; expected: 2 (infection, lungs)")
        infection = self.infection(torch.cat([logits[:, :1], logits[:, 2:]], dim=1), label)
        truth = label[:, 1:]
        lungs = self.lungs(logits[:, 1:2].masked_fill(truth < 0, NEVER), truth.clamp(min=0))
        total: Tensor = infection + self.lung_weight * lungs
        return total
