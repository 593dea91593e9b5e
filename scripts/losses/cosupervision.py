"""The joint co-supervision loss of Hu et al. 2022, equations 1, 2, 5 and 6."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from ..settings import amount, flag, is_distributed
from .checks import check_maps

LOSS_FORMS = ("sum", "paper_literal", "mean")


def soft_dice(probability: Tensor, target: Tensor, batch: bool = True) -> Tensor:
    """Return the soft Dice coefficient 2 * sum(p * g) / (sum(p) + sum(g)) of every channel.

    The denominator is clamped at 1e-5 and nothing is added to the numerator: an empty target gives
    0 whatever is predicted. With `batch` the sums run over the whole batch, in distributed training
    over the batches of all processes, so that several processes optimise what one process with the
    same global batch would.

    Args:
        probability: (B, C, H, W), range [0, 1], float32.
        target: the same shape, values in {0, 1}.
        batch: sum over the batch, result (C,), or over each image, result (B, C).
    """
    axes = (0, 2, 3) if batch else (2, 3)
    intersection = (probability * target).sum(dim=axes)
    total = probability.sum(dim=axes) + target.sum(dim=axes)
    if batch:
        intersection, total = over_processes(torch.stack([intersection, total])).unbind()
    return 2 * intersection / total.clamp(min=1e-5)


def over_processes(sums: Tensor) -> Tensor:
    """Return sums over the batches of all processes of a distributed training, differentiable."""
    if not is_distributed() or dist.get_world_size() < 2:
        return sums
    # The functional form is differentiable: its backward pass sums the gradients over the
    # processes.
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(sums)
    return summed


class CoSupervisionLoss(nn.Module):
    """L_total = theta * L_edge + beta * L_semantic + L_fusion [+ weight * cross-entropy].

    L_fusion is the Dice loss of the main map, L_edge and L_semantic collect the Dice losses of the
    heads. Equations 1 and 2 of the paper subtract the sum of all Dice coefficients from 1, so that
    a perfect C_2 model has the loss -1.6. The default form, a sum of Dice losses, has the same
    gradient and is 0 at its best, which schedules with relative thresholds need.

    Args:
        edge_heads: number of heads under edge supervision; their maps follow the main map.
        mask_heads: number of heads under semantic supervision; their maps come last.
        edge_weight: theta.
        mask_weight: beta.
        edge_head_weights: zeta, one a head; 1 each by default.
        mask_head_weights: omega, one a head; 1 each by default.
        loss_form: "sum" of the heads' losses, "paper_literal" (1 - the sum of the coefficients), or
            "mean" of the heads' losses, which changes the effective theta and beta.
        batch_dice: sums over the whole batch, as in the paper's code; otherwise the mean over the
            images, where an image without lesion has the constant loss 1.
        cross_entropy_weight: weight of the binary cross-entropy of the main map, mean over the
            pixels (Isensee et al., "nnU-Net", Nature Methods 2021, adds it to Dice); 0 in the
            paper.

    Raises:
        ValueError: for an unknown form or weights that do not fit the heads.
    """

    leaves_out_unknown = True
    zeta: Tensor
    omega: Tensor

    def __init__(
        self,
        edge_heads: int = 2,
        mask_heads: int = 3,
        edge_weight: float = 0.8,
        mask_weight: float = 0.4,
        edge_head_weights: Sequence[float] | None = None,
        mask_head_weights: Sequence[float] | None = None,
        loss_form: str = "sum",
        batch_dice: bool | str = True,
        cross_entropy_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if loss_form not in LOSS_FORMS:
            raise SettingError(f"loss_form is {loss_form!r}; expected: {', '.join(LOSS_FORMS)}")
        self.edge_heads = edge_heads
        self.mask_heads = mask_heads
        self.edge_weight = amount("edge_weight", edge_weight)
        self.mask_weight = amount("mask_weight", mask_weight)
        self.loss_form = loss_form
        self.batch_dice = flag(batch_dice)
        self.cross_entropy_weight = amount("cross_entropy_weight", cross_entropy_weight)
        zeta = _head_weights("edge_head_weights", edge_head_weights, edge_heads)
        omega = _head_weights("mask_head_weights", mask_head_weights, mask_heads)
        self.register_buffer("zeta", zeta, persistent=False)
        self.register_buffer("omega", omega, persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a float32 scalar for logits of any type; ValueError for other shapes.

        Args:
            logits: (B, 1 + edge_heads + mask_heads, H, W) from training mode, or (B, 1, H, W), of
                which only L_fusion can be said.
            label: (B, 2, H, W), values in {0, 1}: mask, edge. Pixels whose mask is below 0 are
                unknown and left out.
        """
        heads = self.edge_heads + self.mask_heads
        check_maps(logits, label, heads)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            mask, edge = label.float().split(1, dim=1)
            known = (mask >= 0).float()
            probability = torch.sigmoid(logits.float()) * known
            mask, edge = mask * known, edge * known
            used_heads = heads if logits.shape[1] > 1 else 0
            targets = [mask, *([edge] * self.edge_heads + [mask] * self.mask_heads)[:used_heads]]
            dice = soft_dice(probability, torch.cat(targets, dim=1), self.batch_dice)  # (..., 1 + heads)
            if not self.batch_dice:
                dice = dice.mean(dim=0)
            loss = 1 - dice[0]
            if self.cross_entropy_weight:
                loss = loss + self.cross_entropy_weight * _cross_entropy(logits[:, :1].float(), mask, known)
            if used_heads:
                edge_dice, mask_dice = dice[1:].split([self.edge_heads, self.mask_heads])
                loss = loss + self.edge_weight * self._collect(edge_dice, self.zeta)
                loss = loss + self.mask_weight * self._collect(mask_dice, self.omega)
            return loss

    def _collect(self, dice: Tensor, weights: Tensor) -> Tensor:
        """Return L_edge or L_semantic from its heads' coefficients (heads,); 0 without heads."""
        if dice.numel() == 0:
            return dice.new_zeros(())
        if self.loss_form == "paper_literal":
            return 1 - (weights * dice).sum()
        losses = weights * (1 - dice)
        return losses.mean() if self.loss_form == "mean" else losses.sum()


def _cross_entropy(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Return the mean over the known pixels, in distributed training those of all processes."""
    each = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    total, pixels = over_processes(torch.stack([(each * known).sum(), known.sum()])).unbind()
    return total / pixels.clamp(min=1)


def _head_weights(name: str, weights: Sequence[float] | None, heads: int) -> Tensor:
    if weights is None:
        return torch.ones(heads)
    if len(weights) != heads:
        raise SettingError(f"{name} has {len(weights)} values; expected: {heads}, one a head")
    return torch.tensor(weights, dtype=torch.float32)
