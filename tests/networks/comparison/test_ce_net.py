"""CE-Net's context encoder against its formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scripts.networks.comparison.ce_net import CENet, DenseAtrousConvolution, ResidualMultiKernelPooling


def test_dac_shares_its_convolutions_among_the_branches() -> None:
    torch.manual_seed(0)
    module, x = DenseAtrousConvolution(3).double(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    w1, w3, w5, w = (m.weight for m in (module.near, module.middle, module.far, module.point))
    b1, b3, b5, b = (m.bias for m in (module.near, module.middle, module.far, module.point))

    def d(y: torch.Tensor, rate: int) -> torch.Tensor:
        weight, bias = {1: (w1, b1), 3: (w3, b3), 5: (w5, b5)}[rate]
        return F.conv2d(y, weight, bias, padding=rate, dilation=rate)

    expected = x + d(x, 1).relu()
    for y in (d(x, 3), d(d(x, 1), 3), d(d(d(x, 1), 3), 5)):
        expected = expected + F.conv2d(y, w, b).relu()
    torch.testing.assert_close(module(x), expected)
    assert len(list(module.parameters())) == 8


def test_rmp_pools_at_four_sizes() -> None:
    """A ramp along x has its maximum at the right of every window."""
    module = ResidualMultiKernelPooling(1).double()
    with torch.no_grad():
        module.project.weight.fill_(2.0)
        module.project.bias.fill_(1.0)
    x = torch.arange(12.0, dtype=torch.float64).expand(1, 1, 6, 12)
    found = module(x)
    assert found.shape == (1, 5, 6, 12)
    assert torch.equal(found[:, 4:], x)
    # Windows of 6 end at 5 and 11; their centres lie at 2.5 and 8.5, in between the resize is
    # linear.
    left, right = 2 * 5.0 + 1, 2 * 11.0 + 1
    row = [left + (right - left) * min(max((i - 2.5) / 6, 0), 1) for i in range(12)]
    torch.testing.assert_close(found[0, 3], torch.tensor(row, dtype=torch.float64).expand(6, 12))
    assert found[0, 0, 0, 0] == 2 * 1.0 + 1  # window of 2


@pytest.mark.parametrize("size", [(160, 256), (256, 160), (32, 32)])
def test_an_image_smaller_than_the_largest_kernel_is_refused_in_one_line(size: tuple[int, int]) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=rf"^images are {size[0]} x {size[1]} .* from 192 on$"):
        CENet(base_width=4)(torch.empty(2, 1, *size))


def test_the_smallest_image() -> None:
    with torch.device("meta"):
        assert CENet(base_width=4)(torch.empty(2, 1, 192, 192)).shape == (2, 1, 192, 192)
