"""Networks by name: one line registers one, and metadata can ask for nothing else."""

from __future__ import annotations

import json
from typing import Any

import monai.networks.nets
import pytest
import torch
from torch import Tensor, nn

from scripts.errors import UserError
from scripts.inference.building import network_from_metadata
from scripts.networks.registration import NETWORKS, register
from scripts.networks.registry import checked_spec, create_network, name_of, same_network
from scripts.networks.resunet.resunet import ResUNet

BASIC = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "features": [4, 4, 4, 4, 4, 4]}


def test_one_line_makes_a_network_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(NETWORKS, "one_convolution", raising=False)

    @register("one_convolution")
    class OneConvolution(nn.Module):
        def __init__(self, size: int = 3) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, size, padding=size // 2)

        def forward(self, image: Tensor) -> Tensor:
            out: Tensor = self.layer(image)
            return out

    try:
        network = create_network("one_convolution", size=5)
        assert network.spec == {"name": "one_convolution", "arguments": {"size": 5}}
        again = network_from_metadata({"network": json.loads(json.dumps(network.spec))}, deep_supervision=False)
        again.load_state_dict(network.state_dict())
        with pytest.raises(ValueError, match="'resunet' is that of ResUNet"):
            register("resunet")(OneConvolution)
    finally:
        del NETWORKS["one_convolution"]


def test_names_of_classes() -> None:
    assert name_of(ResUNet) == "resunet"
    assert name_of(monai.networks.nets.BasicUNet) == "monai.networks.nets.BasicUNet"
    with pytest.raises(UserError, match=r"network_def is torch\.nn\.modules\.linear\.Linear"):
        name_of(nn.Linear)


def test_a_class_of_monai_comes_back_from_metadata() -> None:
    network = create_network("monai.networks.nets.BasicUNet", **BASIC).eval()
    spec = json.loads(json.dumps(network.spec))
    assert same_network(spec, {**spec, "arguments": {**BASIC, "dropout": 0.0}})
    again = network_from_metadata({"network": spec}, deep_supervision=False).eval()
    again.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(again(image), network(image))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torch.nn.Linear",
        "monai.networks.nets",
        "monai.networks.nets.",
        "monai.networks.nets.resnet50",  # a function
        "monai.networks.nets.basic_unet.BasicUNet",
        "monai.networks.nets.torch",
        "monai.networks.blocks.Convolution",
        "scripts.networks.resunet.resunet.ResUNet",
        "",
    ],
)
def test_metadata_name_nothing_else(name: str) -> None:
    with pytest.raises(UserError, match=r"expected: acfnet, attention_unet, .* or a class of monai\.networks\.nets"):
        network_from_metadata({"network": {"name": name, "arguments": {}}})


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("resunet", {"base_widht": 4}, "unexpected keyword argument 'base_widht'"),
        ("monai.networks.nets.UNet", {"spatial_dims": 2}, "missing a required argument: 'in_channels'"),
        ("resunet", {"base_width": "$__import__('os').getpid()"}, "expected: what JSON holds"),
        ("resunet", {"edge_stages": [1, "@x"]}, "expected: what JSON holds"),
        ("monai.networks.nets.BasicUNet", {**BASIC, "act": {"_target_": "os.system"}}, "expected: what JSON holds"),
        ("monai.networks.nets.BasicUNet", {**BASIC, "act": nn.ReLU}, "expected: what JSON holds"),
        (
            "monai.networks.nets.FlexibleUNet",
            {"in_channels": 1, "out_channels": 1, "backbone": "efficientnet-b0", "pretrained": True},
            "expected: nothing that is read or downloaded",
        ),
    ],
)
def test_arguments_are_checked(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        network_from_metadata({"network": {"name": name, "arguments": arguments}})
    assert "\n" not in str(caught.value)


def test_a_class_that_downloads_unless_told_otherwise_is_refused() -> None:
    arguments = {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1, "num_classes": 1}
    with pytest.raises(UserError, match="pretrained is True"):
        checked_spec({"name": "monai.networks.nets.EfficientNetBN", "arguments": arguments})
    told = {**arguments, "pretrained": False}
    assert checked_spec({"name": "monai.networks.nets.EfficientNetBN", "arguments": told})["arguments"] == told


def test_networks_whose_defaults_json_cannot_hold_are_compared() -> None:
    one = {"name": "monai.networks.nets.SwinUNETR", "arguments": {"in_channels": 1, "out_channels": 1}}
    assert same_network(one, {**one, "arguments": {**one["arguments"], "feature_size": 24}})
    assert not same_network(one, {**one, "arguments": {**one["arguments"], "feature_size": 48}})
