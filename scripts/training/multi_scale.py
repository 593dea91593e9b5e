"""Training at several sizes of the same batch, with clipped gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine
from monai.engines import IterationEvents, SupervisedTrainer
from torch import Tensor

from ..errors import SettingError
from ..transforms.items import UNKNOWN


class MultiScaleTrainer(SupervisedTrainer):
    """Train with every batch once at each of several sizes, one optimizer step per size.

    Fan et al. 2020 (arXiv 2004.14133) train Inf-Net so, at 0.75, 1 and 1.25 of the size; their
    published code clips every component of the gradient to [-0.5, 0.5]. An iteration is still a
    batch: what counts iterations (schedules, progress, a resumed run) sees one. The loss of an
    iteration is the mean over its sizes; image, label and prediction are those of the last one.
    Labels are resized like images and get values between 0 and 1 at their boundaries; what touches
    a pixel of unknown label (below 0) is unknown.

    Args:
        scales: factors of height and width, in the order of the steps.
        size_multiple: heights and widths are rounded to multiples of it, as the network wants them.
        clip_value: largest absolute value of a gradient's component.
        **arguments: those of `SupervisedTrainer`.

    Raises:
        ValueError: for a scale, multiple or clip value that is not positive, or without a scale.
    """

    def __init__(
        self, *, scales: Sequence[float] | float, size_multiple: int, clip_value: float, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        if not isinstance(scales, Sequence) or not scales or min(scales) <= 0:
            raise SettingError(f"scales are {scales!r}; expected: one or more, each > 0")
        if size_multiple < 1 or clip_value <= 0:
            raise SettingError(f"size_multiple is {size_multiple}, clip_value {clip_value}; expected: both > 0")
        self.scales = tuple(scales)
        self.size_multiple = size_multiple
        self.clip_value = clip_value
        self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _iteration(self, engine: SupervisedTrainer, batchdata: Mapping[str, Any]) -> Any:
        losses: list[Tensor] = []
        for scale in self.scales:
            size = scaled_size(batchdata["image"].shape[2:], scale, self.size_multiple)
            image, label = resized(batchdata["image"], size), resized_label(batchdata["label"], size)
            scaled = {**batchdata, "image": image, "label": label}
            # MONAI takes the batch of the state apart when the model is through, so each pass
            # brings its own.
            engine.state.batch = scaled
            output = super()._iteration(engine, scaled)
            items = output if isinstance(output, list) else [output]
            losses.append(torch.as_tensor(items[0]["loss"]).detach())
        # Read once, when the steps of all sizes are under way.
        mean = sum(torch.stack(losses).cpu().tolist()) / len(losses)
        for item in items:
            item["loss"] = mean
        return output

    def _clip(self, engine: Engine) -> None:
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_value_(engine.network.parameters(), self.clip_value)


def scaled_size(size: Sequence[int], scale: float, multiple: int) -> list[int]:
    """Return a size times a scale, rounded to the nearest multiple and at least that.

    >>> [scaled_size((352, 256), scale, 32) for scale in (0.75, 1, 1.25)]
    [[256, 192], [352, 256], [448, 320]]
    """
    return [max(round(side * scale / multiple), 1) * multiple for side in size]


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, C, H, W) at another height and width, bilinear, corners on corners."""
    if list(size) == list(x.shape[2:]):
        return x
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def resized_label(label: Tensor, size: Sequence[int]) -> Tensor:
    """Return labels at another size; what is made of a pixel below 0 is `UNKNOWN`, no mixture."""
    unknown = resized((label < 0).to(label), size) > 0
    return resized(label.clamp(min=0), size).masked_fill(unknown, UNKNOWN)
