from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts import precision
from scripts.errors import UserError
from scripts.inference.inferer import NetworkInferer, ScanInferer
from scripts.inference.tta import ViewAgreement, average_over_flips

SLICES = {"preprocessing": {"size": 32}}
VOLUMES = {"preprocessing": {"size": 32, "patch_size": [16, 16, 4]}}


@pytest.mark.parametrize(
    ("amp", "able", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("true", True, torch.bfloat16),
        ("true", False, torch.float32),
        ("false", True, torch.float32),
    ],
)
def test_a_cpu_that_would_emulate_bfloat16_computes_in_float32(
    amp: str, able: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: able)
    network, seen = nn.Conv2d(1, 1, 1), []
    network.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    assert NetworkInferer(amp)(torch.zeros(1, 1, 4, 4), network).dtype == torch.float32
    assert seen == [expected]
    with pytest.raises(UserError, match="amp is 'half'; expected: auto, true, false"):
        NetworkInferer("half")


@pytest.mark.parametrize(("logit", "target"), [(8.0, 1.0), (-8.0, 0.0)])
def test_a_loss_of_torch_keeps_its_small_values_in_mixed_precision(
    logit: float, target: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of logits in bfloat16 the first would have no gradient, the second no loss."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.bias, logit)
    logits = NetworkInferer(True)(torch.zeros(1, 1, 4, 4), network)
    loss = nn.BCEWithLogitsLoss()(logits, torch.full((1, 1, 4, 4), target))
    loss.backward()
    assert loss.item() == pytest.approx(3.3541e-4, rel=1e-3)  # ln(1 + e^-8)
    assert abs(network.bias.grad.item()) == pytest.approx(3.3535e-4, rel=1e-2)  # 1 / (1 + e^8)


@pytest.mark.parametrize(("shape", "exact"), [((2, 6, 4), True), ((6, 6, 2), True), ((3, 6, 4), False)])
def test_a_volume_smaller_than_the_kernel_is_convolved_in_float32(
    shape: tuple[int, int, int], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's gradients of the weights are wrong there in bfloat16 (torch 2.13, AVX512-BF16)."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    torch.manual_seed(0)
    network, volumes, weight = nn.Conv3d(16, 8, 3, padding=1), torch.randn(2, 16, *shape), torch.randn(2, 8, *shape)
    wanted = torch.autograd.grad((network(volumes) * weight).sum(), list(network.parameters()))
    found = torch.autograd.grad((NetworkInferer(True)(volumes, network) * weight).sum(), list(network.parameters()))
    assert torch.allclose(found[0], wanted[0], rtol=1e-5, atol=1e-4) is exact
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.3)


def test_a_scan_goes_to_the_network_as_the_metadata_states() -> None:
    """The stand-in network returns its input, so that the blended patches are the scan again."""
    scan, seen = torch.rand(1, 1, 32, 32, 5), []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape))
        return image

    torch.testing.assert_close(ScanInferer(SLICES)(scan, network), scan)
    assert {shape[1:] for shape in seen} == {(1, 32, 32)}
    seen.clear()
    torch.testing.assert_close(ScanInferer(VOLUMES)(scan, network), scan)
    assert {shape[1:] for shape in seen} == {(1, 16, 16, 4)}
    assert sum(shape[0] for shape in seen) == 3 * 3 * 2  # steps of 8, 8 and 2


def test_every_slice_is_flipped() -> None:
    torch.manual_seed(0)
    network, volume = nn.Conv2d(1, 1, 3, padding=1), torch.randn(1, 1, 32, 32, 5)
    with torch.inference_mode():
        found = ScanInferer(SLICES, 2, test_time_flips=True)(volume, network)
        expected = torch.stack([average_over_flips(network, volume[..., z], 4) for z in range(5)], dim=-1)
        assert not torch.allclose(found[..., 0], network(volume[..., 0]), atol=1e-2)
    torch.testing.assert_close(found, expected)


class TwoTargets(nn.Module):
    """Nothing is infected, the right half is lung."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        lungs = torch.full_like(image, -9.0)
        lungs[:, :, :16] = 9.0
        return torch.cat([torch.full_like(image, -9.0), lungs], dim=1)


@pytest.mark.parametrize(("every", "maps", "counts"), [(False, 1, [0, 0]), (True, 2, [0, 32 * 32])])
def test_views_are_compared_on_the_maps_that_are_returned(every: bool, maps: int, counts: list[int]) -> None:
    metadata = {**SLICES, "targets": ["infection", "lungs"]}
    inferer = ScanInferer(metadata, test_time_flips=True, every_target=every)
    inferer.agreement = ViewAgreement(0.5)
    assert inferer(torch.zeros(1, 1, 32, 32, 3), TwoTargets().eval()).shape == (1, maps, 32, 32, 3)
    assert inferer.agreement.take().tolist() == [counts] * 3


def test_the_metadata_says_whether_to_flip_unless_the_user_does() -> None:
    metadata = {**SLICES, "operating_point": {"test_time_flips": True}}
    assert [ScanInferer(metadata, 4, flips).views for flips in (None, "null", "false", 2)] == [4, 4, 1, 2]
    assert ScanInferer(SLICES, 4).views == 1
    with pytest.raises(UserError, match="test_time_flips is 'maybe'; expected: true or false"):
        ScanInferer(metadata, 4, "maybe")


def test_no_slices_at_once_are_refused() -> None:
    with pytest.raises(UserError, match="slices_at_once is 0; expected: a whole number from 1"):
        ScanInferer(SLICES, 0)
