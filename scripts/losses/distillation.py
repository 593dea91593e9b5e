"""Teach a network by the probabilities of another one, beside labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..settings import amount
from .checks import check_sizes, require_unknown_left_out
from .cosupervision import over_processes


class DistillationLoss(nn.Module):
    """L = L_hard + weight * (KL(q || p) + sum |p - q| / sum (p + q)), with p = sigmoid(main map).

    L_hard is that of the labels, which leaves out slices and pixels without one. q is the teacher's
    probability; where the teacher decides against a known label, the label takes its place. The
    divergence is the mean over the pixels (Hinton et al. 2015, arXiv 1503.02531). The quotient has
    sums over the batch and is 1 - Dice for hard q. For soft q it is lowest at p = q, where soft
    Dice is not highest (Wang et al. 2023, arXiv 2303.16296). Both are 0 where the two agree.

    There is no temperature: a network that learns by Dice is sure of nearly every pixel, and a
    temperature would raise the background, which is most of them.

    Args:
        hard: loss of the labels.
        weight: weight of the teacher, 0 or more.

    Raises:
        UserError: for a loss that does not leave out pixels without a label, or another weight.
    """

    def __init__(self, hard: nn.Module, weight: float | str = 1.0) -> None:
        super().__init__()
        require_unknown_left_out(hard, "a teacher")
        self.hard = hard
        self.weight = amount("teacher_weight", weight)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar for logits of any type; ValueError for other shapes.

        Args:
            logits: see the loss of the labels.
            label: (B, 3, H, W): mask in {0, 1} or `UNKNOWN`, edge, the teacher's probability.
        """
        if label.shape[1] != 3:
            raise SettingError(f"labels have {label.shape[1]} channels; expected: 3 (mask, edge, teacher)")
        check_sizes(logits, label)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            hard: Tensor = self.hard(logits, label[:, :2])
            mask, taught = label[:, :1].float(), label[:, 2:].float().clamp(0, 1)
            wrong = (mask >= 0) & ((taught >= 0.5) != (mask >= 0.5))
            return hard + self.weight * _difference(logits[:, :1].float(), torch.where(wrong, mask, taught))


def _difference(logits: Tensor, target: Tensor) -> Tensor:
    entropy = torch.special.entr(target) + torch.special.entr(1 - target)
    divergence = F.binary_cross_entropy_with_logits(logits, target) - entropy.mean()
    probability = torch.sigmoid(logits)
    sums = torch.stack([(probability - target).abs().sum(), probability.sum() + target.sum()])
    apart, total = over_processes(sums).unbind()
    return divergence + apart / total.clamp(min=1e-5)
