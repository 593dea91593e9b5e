"""The contract of every network here, and the checks of arguments and sizes."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import SettingError


def check_choice(name: str, value: str, expected: Sequence[str]) -> None:
    """Raise ValueError, naming those expected, for a value that is not one of them."""
    if value not in expected:
        raise SettingError(f"{name} is {value!r}; expected: {', '.join(expected)}")


def check_width(base_width: int | str, multiple: int = 1) -> None:
    """Raise ValueError for a base width that is not a positive multiple of `multiple`."""
    if not isinstance(base_width, int) or base_width < multiple or base_width % multiple:
        expected = "1 and more" if multiple == 1 else f"multiples of {multiple} from {multiple} on"
        raise SettingError(f"base_width is {base_width!r}; expected: {expected}")


def check_size(image: Tensor, multiple: int, smallest: int = 0) -> None:
    """Raise ValueError for images (B, C, H, W) and volumes (B, C, H, W, D) of unusable size.

    Height and width must be multiples of `multiple` and at least `smallest`.
    """
    height, width = image.shape[2], image.shape[3]
    if height % multiple != 0 or width % multiple != 0:
        raise SettingError(f"images are {height} x {width} pixels; expected: multiples of {multiple}")
    if min(height, width) < smallest:
        raise SettingError(f"images are {height} x {width} pixels; expected: from {smallest} on")


class SegmentationNetwork(nn.Module):
    """Check the arguments that all networks share and hold what is asked of every network.

    A network maps images (B, in_channels, H, W) to logits (B, out_channels, H, W), the main map. In
    training mode with `deep_supervision` it returns (B, out_channels + edge_heads + mask_heads, H,
    W): main map, edge heads, mask heads. Most networks refuse heights and widths that are not
    multiples of `size_multiple` with a ValueError. The docstrings of the networks leave out what
    means the same in all of them, such as arguments and errors.

    Args:
        base_width: channels of the finest level; those of the other levels are multiples of it.
        dropout: probability of dropping a channel before the last convolution while training. The
            papers have none; repeated passes in training mode estimate epistemic uncertainty by it.
        width_multiple: the base width is a multiple of it, of 4 unless a network says otherwise.
        size_multiple: height and width of an image are multiples of it.
        edge_heads: number of heads whose target is the edge.
        mask_heads: number of heads whose target is the mask.
        deep_supervision: whether training mode returns the maps of the heads too. The parameters
            are the same either way.

    Attributes:
        rearranged: whether evaluation mode may compute in another order, which is faster and equal
            but for rounding.

    Raises:
        ValueError: if an argument is outside what is expected.
    """

    rearranged = False

    def __init__(
        self,
        base_width: int,
        dropout: float,
        *,
        width_multiple: int = 4,
        size_multiple: int = 1,
        edge_heads: int = 0,
        mask_heads: int = 0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        check_width(base_width, width_multiple)
        if not 0 <= dropout < 1:
            raise SettingError(f"dropout is {dropout}; expected: 0 <= dropout < 1")
        self.size_multiple = size_multiple
        self.edge_heads = edge_heads
        self.mask_heads = mask_heads
        self.deep_supervision = deep_supervision
