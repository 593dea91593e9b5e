"""The one place that applies a network: batches of slices or patches, mixed precision, flips.

Configs name these classes as MONAI inferers; `Predictor` calls them outside of a workflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..precision import SmallVolumesInFloat32, mixed_precision
from ..settings import count, decision_threshold, optional
from ..transforms.slice_input import with_metadata_of, without_metadata
from .backends.choice import BATCH_SIZE, TORCH, Backend
from .backends.torch_network import TorchNetwork
from .metadata import OPERATING_POINT, TARGETS
from .ood import FeatureMeans, OODScore
from .tta import Settling, ViewAgreement, average_over_flips, view_count

if TYPE_CHECKING:
    from .backends.openvino_network import OpenVinoNetwork


class NetworkInferer:
    """Apply a network to a batch, with mixed precision and test-time augmentation where wanted.

    Args:
        amp: "auto", "true" or "false": whether to compute in bfloat16 by autocast, see
            `mixed_precision`. float16, which needs a gradient scaler, is left to MONAI's engines
            and their own `amp=True`, see `scales_gradients`.
        views: of how many flips the logits are the mean, see `average_over_flips`.

    Attributes:
        agreement: receives how far the views agree, where it is set.
        features: receives the channel means that the network returns of layers, where it is set.
        settling: says when a slice is seen in no further view, where it is set.
        maps: which of the network's maps are returned; None: all.
    """

    agreement: ViewAgreement | None = None
    features: FeatureMeans | None = None
    settling: Settling | None = None
    maps: slice | None = None

    def __init__(self, amp: bool | str = False, views: int = 1) -> None:
        mixed_precision(amp, "cpu")  # refuses another setting
        self.amp, self.views = amp, views

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map images (B, C, ...) to logits (B, K, ...), float32 where autocast computes them."""
        enabled = mixed_precision(self.amp, inputs.device) is torch.bfloat16
        volumes = enabled and inputs.device.type == "cpu" and inputs.dim() == 5
        with (
            torch.autocast(inputs.device.type if enabled else "cpu", dtype=torch.bfloat16, enabled=enabled),
            SmallVolumesInFloat32() if volumes else nullcontext(),
        ):
            drawing = isinstance(network, nn.Module) and network.training  # dropout: more than a mask is wanted
            features, settling = (None, None) if drawing else (self.features, self.settling)
            logits = average_over_flips(
                network,
                inputs,
                self.views,
                *args,
                agreement=self.agreement,
                features=features,
                settling=settling,
                maps=self.maps,
                **kwargs,
            )
        # the loss comes outside of autocast: one that takes logits as they are would lose its small
        # values in the 8 bits of bfloat16
        return logits.float() if enabled else logits


class ScanInferer(NetworkInferer):
    """Apply a network to whole scans (B, C, size, size, Z) as its checkpoint metadata state.

    A network for slices sees them in batches. A network for volumes sees patches that overlap by
    half and are blended by a Gaussian; scans smaller than a patch are padded with 0. Of a network
    with several targets the map of the first, infection, is returned.

    Args:
        metadata: see `read_metadata`.
        batch_size: slices or patches in a batch; OpenVINO splits it, see `OPENVINO_BATCH`.
        test_time_flips: in place of the operating point's, see `view_count`; None or "null": as the
            metadata state.
        backend: what applies the network and in which precision. A network in training mode (Monte
            Carlo dropout) is always applied as it is.
        layers: names of the layers whose channel means `features` collects.
        every_target: whether the maps of all targets are returned.
        threshold: decision threshold of a network for slices: one whose views lie far below is seen
            in no further ones, see `Settling`, and its map and agreement are those of the views
            seen. torch in float32, with which others are compared, applies every view all the same.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        batch_size: int = BATCH_SIZE,
        test_time_flips: bool | int | str | None = None,
        backend: Backend = TORCH,
        layers: Sequence[str] = (),
        every_target: bool = False,
        threshold: float | str | None = None,
    ) -> None:
        point = metadata.get("operating_point", OPERATING_POINT)  # while training there is none
        flips = optional(test_time_flips)
        super().__init__(views=view_count(point["test_time_flips"] if flips is None else flips))
        self.batch_size, self.backend = count("slices_at_once", batch_size), backend
        if metadata.get(TARGETS) and not every_target:
            self.maps = slice(0, 1)
        self.features = FeatureMeans() if layers else None
        ood = OODScore.from_metadata(metadata)  # one compiled model serves those that collect and those that do not
        self._spec, self._layers = metadata.get("network", {}), tuple(layers or (ood.layers if ood else ()))
        patch_size = metadata["preprocessing"].get("patch_size")
        self.patches = patch_size and _sliding_window(patch_size, self.batch_size)
        if threshold is not None and backend != TORCH and not self.patches:
            self.settling = Settling(decision_threshold(threshold))

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map scans (B, C, X, Y, Z) to logits (B, K, X, Y, Z) of the same type."""
        apply, applied = super().__call__, self._applied_by_backend(network)
        if self.patches:
            logits: Tensor = self.patches(inputs, lambda images: apply(images, applied, *args, **kwargs))
            return logits
        batches = without_metadata(inputs).movedim(-1, 1).flatten(0, 1).split(self.batch_size)
        maps = torch.cat([apply(batch, applied, *args, **kwargs) for batch in batches])
        return with_metadata_of(inputs, maps.unflatten(0, (len(inputs), -1)).movedim(1, -1).to(inputs.dtype))

    def prepare(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Compile a network for images (C, ...) now, where the first of them would have to wait.

        Raises:
            UserError: if the backend cannot take the network.
        """
        if self.backend.name == "openvino":
            self._by_openvino(network).compiled(shape)

    def _by_openvino(self, network: nn.Module) -> OpenVinoNetwork:
        from .backends.openvino_network import OpenVinoNetwork

        return OpenVinoNetwork(network, self._spec, self.backend.precision, self._layers)

    def _applied_by_backend(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Return what maps images to logits, or to these and the channel means of layers."""
        plain = self.backend == TORCH and self.features is None
        if plain or not isinstance(network, nn.Module) or network.training:
            return network
        if self.backend.name == "openvino":
            return self._by_openvino(network).eval()
        return TorchNetwork(network, self.backend.precision, () if self.features is None else self._layers).eval()


def _sliding_window(patch_size: Sequence[int], batch_size: int) -> Callable[..., Any]:
    from monai.inferers import SlidingWindowInferer  # importing MONAI takes seconds; slices do without

    return SlidingWindowInferer(patch_size, batch_size, overlap=0.5, mode="gaussian")
