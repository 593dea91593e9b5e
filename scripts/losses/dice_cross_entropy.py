"""The loss of CARes-UNet (Xu et al. 2021): Dice over background and lesion, and cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .checks import check_sizes
from .structure import weighted_mean

SMOOTH = 1e-4  # in numerator and denominator, so that a class that is neither there nor predicted counts as right


class DiceCrossEntropyLoss(nn.Module):
    """L = (1 - mean Dice) + cross entropy, both of the softmax over background and lesion.

    Dice = (2 * sum(p * g) + 1e-4) / (sum(p) + sum(g) + 1e-4) is that of one class in one image; its
    mean runs over classes and images, so background counts as much as lesion, and several processes
    optimise what one process with their batches together would.

    The network hands over lesion - background as one logit z; the softmax of (0, z) is that of its
    two maps. The published code puts a sigmoid on each map first, so that the cross entropy of a
    perfect prediction is ln(1 + 1/e) = 0.3133. That is no option here: the sigmoids of two maps
    cannot be told from their difference.
    """

    leaves_out_unknown = True

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar for logits of any type; ValueError for other shapes.

        Args:
            logits: (B, 1, H, W), lesion - background.
            label: (B, 2, H, W), values in [0, 1]: mask, hard or soft; edge, which is not looked at.
                Pixels whose mask is below 0 are unknown and left out.
        """
        if logits.shape[1] != 1 or label.shape[1] != 2:
            raise SettingError(
                f"logits have {logits.shape[1]} channels and labels {label.shape[1]}; "
                "expected: 1 logit (networks without heads), 2 labels (mask, edge)"
            )
        check_sizes(logits, label)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            lesion = logits.float()
            mask = label[:, :1].float()
            known = (mask >= 0).float()
            mask = mask * known
            probability = torch.cat([torch.sigmoid(-lesion), torch.sigmoid(lesion)], dim=1) * known
            target = torch.cat([known - mask, mask], dim=1)
            both, total = (x.sum(dim=(2, 3)) for x in (probability * target, probability + target))
            dice = (2 * both + SMOOTH) / (total + SMOOTH)
            cross_entropy = F.binary_cross_entropy_with_logits(lesion, mask, reduction="none")
            return 1 - dice.mean() + weighted_mean(cross_entropy, known).mean()
