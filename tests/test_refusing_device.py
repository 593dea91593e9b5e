"""The device of the tests: right numbers, and a refusal wherever a GPU would refuse."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from scripts.inference import inferer
from scripts.inference.inferer import NetworkInferer, ScanInferer
from tests import refusing_device

pytestmark = pytest.mark.parametrize("device", [f"{refusing_device.NAME}:0"], indirect=True)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(4, 1, 1),
    )


def test_steps_of_an_optimizer_are_those_of_the_cpu(device: str) -> None:
    image, networks = torch.rand(2, 1, 8, 8), [small_network(), copy.deepcopy(small_network().to(device))]
    for network, place in zip(networks, ("cpu", device), strict=True):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            network(image.to(place)).square().mean().backward()
            optimizer.step()
    for name, value in networks[1].state_dict().items():
        assert value.device.type == refusing_device.NAME
        torch.testing.assert_close(value.cpu(), networks[0].state_dict()[name], rtol=0, atol=0)


def test_views_share_their_memory(device: str) -> None:
    whole = torch.zeros(2, 3, device=device)
    whole[0, 1] = 5
    whole.view(6).add_(1)
    whole.t()[2] = 7
    assert whole.cpu().tolist() == [[1, 6, 7], [1, 1, 7]]


@pytest.mark.parametrize(
    "read",
    [
        lambda map_: map_.numpy(),
        np.asarray,
        lambda map_: MetaTensor(map_).numpy(),
        lambda map_: np.asarray(MetaTensor(map_)),
        lambda map_: map_.tolist(),
        lambda map_: map_.double(),
    ],
)
def test_a_map_cannot_be_read(read: Callable[[torch.Tensor], object], device: str) -> None:
    on_device = torch.ones(2, 2, device=device)
    with pytest.raises(TypeError):
        read(on_device)
    assert type(on_device.cpu()) is torch.Tensor
    assert read(on_device.cpu()) is not None


def test_tensors_of_two_devices_do_not_mix(device: str) -> None:
    here, there = torch.ones(3), torch.ones(3, device=device)
    for mix in (
        lambda: there + here,
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: torch.where(there > 0, there, here),
        lambda: small_network()(torch.ones(1, 1, 8, 8, device=device)),
    ):
        with pytest.raises(RuntimeError, match=r"[Ee]xpected all tensors"):
            mix()
    assert (there * torch.tensor(2.0)).sum().item() == 6  # a single value may come from the host, as on CUDA


def test_reads_are_counted(device: str) -> None:
    values = torch.arange(4.0, device=device)
    with refusing_device.counting() as reads:
        if values.sum() > 0:
            float(values[1])
        values.cpu()
    assert reads == {"values": 2, "copies": 1}


def test_files_come_and_go(device: str) -> None:
    state, file = small_network().to(device).state_dict(), io.BytesIO()
    torch.save(state, file)
    for place, kind in (("cpu", "cpu"), (device, refusing_device.NAME)):
        file.seek(0)
        found = torch.load(file, map_location=place, weights_only=True)
        assert {value.device.type for value in found.values()} == {kind}
        assert all(torch.equal(value.cpu(), state[name].cpu()) for name, value in found.items())


def test_feature_means_are_those_of_the_cpu_where_there_is_no_float64(device: str) -> None:
    image, network, found = torch.rand(2, 1, 8, 8), small_network(), []
    for place in ("cpu", device):
        inferer = ScanInferer({"preprocessing": {}}, layers=("0",))
        inferer(image[..., None].to(place), network.to(place).eval())
        found.append(inferer.features.take())
    assert torch.equal(found[0], found[1])


def test_mixed_precision_of_the_device_reaches_the_network(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's trainer turns the autocast of CUDA on around the inferer,
    which has to leave it on."""
    types = {"cpu": torch.bfloat16}
    monkeypatch.setattr(inferer, "mixed_precision", lambda _, place: types.get(torch.device(place).type, torch.float32))
    seen, image = [], torch.zeros(1, device=device)

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append((torch.is_autocast_enabled(refusing_device.NAME), torch.is_autocast_enabled("cpu")))
        return image

    with torch.autocast(refusing_device.NAME, dtype=torch.bfloat16):
        NetworkInferer(True)(image, network)
    NetworkInferer(True)(torch.zeros(1), network)
    assert seen == [(True, False), (False, True)]
