"""The layers of the ResUNet against the paper's description, written a second time here.

The oracle runs the network's own weights through plain functional calls, in the order in which the
convolutions were seen to run; strides, pads, ReLUs, shortcuts, concatenation order and fusion are
the oracle's, so any of them that differs in the network shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.resunet.resunet import ResUNet
from scripts.networks.resunet.supervision import SupervisionHeads
from tests.networks.shared import FUSIONS, image, variant_name

NO_HEADS: dict[str, Any] = {"edge_stages": (), "mask_stages": ()}


def meta_network(**arguments: Any) -> ResUNet:
    """A network without storage: counts and shapes cost nothing."""
    with torch.device("meta"):
        return ResUNet(**arguments)


def network(seed: int = 0, base_width: int = 8, **arguments: Any) -> ResUNet:
    """A narrow network in float64 with batch norms that do something."""
    torch.manual_seed(seed)
    model = ResUNet(base_width=base_width, **arguments).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model


def frozen_statistics(model: ResUNet) -> ResUNet:
    """Training mode (heads on) with batch norms that use their running statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


# ----------------------------------------------------------------------------------------------
# size


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 29_189_355),
        ({"gate": "channelwise"}, 29_207_270),
        ({"residual": "projected", "include_top": True}, 29_189_355),
        ({"fusion": "add", **NO_HEADS}, 29_185_441),
        ({"fusion": "concat", **NO_HEADS}, 29_205_985),
        ({"fusion": "none", **NO_HEADS}, 29_119_585),
        ({"fusion": "none"}, 29_119_585 + 1_029),
        (NO_HEADS, 29_189_355 - 1_029),
        ({"edge_stages": (1, 2), "mask_stages": ()}, 29_189_355 - 1_029 + 130),
        ({"edge_stages": (), "mask_stages": (3, 4, 5)}, 29_189_355 - 130),
        ({"edge_stages_dec": (1, 2), "mask_stages_dec": (3, 4, 5)}, 29_189_355 + 1_029),
        ({"dropout": 0.3}, 29_189_355),
        ({"in_channels": 3}, 29_189_355 + 2 * 9 * 64),
        ({"out_channels": 3}, 29_189_355 + 2 * 65),
    ],
)
def test_parameter_count_at_the_papers_width(arguments: dict[str, Any], expected: int) -> None:
    assert count(meta_network(**arguments)) == expected


@pytest.mark.parametrize("i", range(6))
def test_parameter_count_is_the_same_for_every_c_i(i: int) -> None:
    stages = (1, 2, 3, 4, 5)
    model = meta_network(edge_stages=stages[:i], mask_stages=stages[i:])
    assert (model.edge_heads, model.mask_heads) == (i, 5 - i)
    assert count(model) == 29_189_355
    assert sum(count(m) for m in model.modules() if isinstance(m, SupervisionHeads)) == 1_029


def parts(w: int) -> dict[str, int]:
    """Parameters of each part for base width w, counted from the table of layers."""

    def conv3(c_in: int, c_out: int) -> int:
        return 9 * c_in * c_out + c_out + 2 * c_out  # with its bias and its batch norm

    def stage(c_in: int, c_out: int, blocks: int) -> int:
        shortcut = 0 if c_in == c_out else c_in * c_out + 2 * c_out
        return conv3(c_in, c_out) + (2 * blocks - 1) * conv3(c_out, c_out) + shortcut

    def up(c_in: int, c_up: int, c_skip: int, c_out: int) -> int:
        return 4 * c_in * c_up + c_up + conv3(c_up + c_skip, c_out) + conv3(c_out, c_out)

    levels = (w, w, 2 * w, 4 * w, 8 * w)
    return {
        "encoder": 9 * w
        + 2 * w
        + stage(w, w, 3)
        + stage(w, 2 * w, 4)
        + stage(2 * w, 4 * w, 6)
        + stage(4 * w, 8 * w, 3),
        "bridge": 2 * conv3(8 * w, 8 * w),
        "decoder": up(8 * w, 4 * w, 4 * w, 4 * w)
        + up(4 * w, 2 * w, 2 * w, 2 * w)
        + up(2 * w, w, w, w)
        + up(w, w // 2, w, w),
        "project": sum(c * w + w for c in levels),
        "gates": 5 * (9 * w + 1),
        "out": w + 1,
        "heads": sum(c + 1 for c in levels),
    }


def test_the_count_by_parts_is_the_specifications() -> None:
    assert parts(64) == {
        "encoder": 21_283_392,
        "bridge": 4_721_664,
        "decoder": 3_114_464,
        "project": 65_856,
        "gates": 2_885,
        "out": 65,
        "heads": 1_029,
    }


@pytest.mark.parametrize(("width", "expected"), [(16, 1_831_107), (32, 7_306_363)])
def test_parameter_count_of_narrower_networks(width: int, expected: int) -> None:
    assert sum(parts(width).values()) == expected
    assert count(meta_network(base_width=width)) == expected


# --------------------------------------------------------------------------------- layers and
# shapes


@dataclass
class Call:
    """One convolution as it ran, with the batch norm that took its output, if any."""

    conv: nn.Module
    given: torch.Tensor
    made: torch.Tensor
    norm: nn.BatchNorm2d | None = None

    @property
    def row(self) -> tuple[str, int, int, int, int, tuple[int, ...], tuple[int, ...]]:
        kind = "convT" if isinstance(self.conv, nn.ConvTranspose2d) else "conv"
        c = self.conv
        return (
            kind,
            c.in_channels,
            c.out_channels,
            c.kernel_size[0],
            c.stride[0],
            tuple(self.given.shape[2:]),
            tuple(self.made.shape[2:]),
        )


def calls(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[Call]]:
    """Run the model and list its convolutions in the order in which they ran."""
    trace: list[Call] = []

    def note(module: nn.Module, args: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            next(call for call in trace if call.made is args[0]).norm = module
        else:
            trace.append(Call(module, args[0], result))

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        result = model(x)
    for hook in hooks:
        hook.remove()
    return result, trace


def expected_rows() -> Iterator[tuple[Any, ...]]:
    """The main path at width 64 for a 64 x 64 image: kind, channels, kernel, stride, sizes."""
    yield ("conv", 1, 64, 3, 1, (64, 64), (64, 64))
    for c_in, c_out, blocks, n_in, n_out in (
        (64, 64, 3, 32, 32),
        (64, 128, 4, 32, 16),
        (128, 256, 6, 16, 8),
        (256, 512, 3, 8, 4),
    ):
        yield ("conv", c_in, c_out, 3, n_in // n_out, (n_in, n_in), (n_out, n_out))
        for _ in range(2 * blocks - 1):
            yield ("conv", c_out, c_out, 3, 1, (n_out, n_out), (n_out, n_out))
    for _ in range(2):
        yield ("conv", 512, 512, 3, 1, (4, 4), (4, 4))
    for c_in, c_up, c_cat, c_out, n in (
        (512, 256, 512, 256, 8),
        (256, 128, 256, 128, 16),
        (128, 64, 128, 64, 32),
        (64, 32, 96, 64, 64),
    ):
        yield ("convT", c_in, c_up, 2, 2, (n // 2, n // 2), (n, n))
        yield ("conv", c_cat, c_out, 3, 1, (n, n), (n, n))
        yield ("conv", c_out, c_out, 3, 1, (n, n), (n, n))


def test_layers_of_the_papers_network() -> None:
    _, trace = calls(meta_network().eval(), torch.empty(1, 1, 64, 64, device="meta"))
    shortcuts = [call.row for call in trace if call.norm is not None and call.conv.kernel_size == (1, 1)]
    main = [
        call.row
        for call in trace
        if isinstance(call.conv, nn.ConvTranspose2d) or (call.norm is not None and call.conv.kernel_size == (3, 3))
    ]
    assert main == list(expected_rows())
    assert shortcuts == [
        ("conv", 64, 128, 1, 2, (32, 32), (16, 16)),
        ("conv", 128, 256, 1, 2, (16, 16), (8, 8)),
        ("conv", 256, 512, 1, 2, (8, 8), (4, 4)),
    ]
    assert trace[-1].row == ("conv", 64, 1, 1, 1, (64, 64), (64, 64))


def test_biases_stand_where_the_specification_has_them() -> None:
    _, trace = calls(meta_network().eval(), torch.empty(1, 1, 64, 64, device="meta"))
    without = [call.row[:5] for call in trace if call.conv.bias is None]
    assert without == [
        ("conv", 1, 64, 3, 1),
        ("conv", 64, 128, 1, 2),
        ("conv", 128, 256, 1, 2),
        ("conv", 256, 512, 1, 2),
    ]


def test_initialisation() -> None:
    """Encoder: Kaiming normal, fan out; the rest PyTorch's default; norms start as the identity."""
    torch.manual_seed(0)
    model = ResUNet(base_width=16)
    _, trace = calls(model.eval(), torch.zeros(1, 1, 16, 16))
    normed = [call for call in trace if call.norm is not None]
    three = [call.conv for call in normed if call.conv.kernel_size == (3, 3)]
    encoder, decoder = three[:33], three[33:]
    encoder += [call.conv for call in normed if call.conv.kernel_size == (1, 1)]
    assert (len(encoder), len(decoder)) == (36, 10)
    for conv in encoder:
        spread = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert abs(conv.weight.std().item() / spread - 1) < 4 / (2 * conv.weight.numel()) ** 0.5
    for conv in decoder:
        bound = (9 * conv.in_channels) ** -0.5
        assert 0.97 * bound < conv.weight.abs().max().item() <= bound
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


# -------------------------------------------------------------------------------------- whole
# forward


def normed(x: torch.Tensor, call: Call, stride: int = 1) -> torch.Tensor:
    pad = call.conv.weight.shape[-1] // 2
    y = F.conv2d(x, call.conv.weight, call.conv.bias, stride=stride, padding=pad)
    n = call.norm
    scale = n.weight / (n.running_var + 1e-5).sqrt()
    return (y - n.running_mean[:, None, None]) * scale[:, None, None] + n.bias[:, None, None]


def oracle_features(trace: Sequence[Call], x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """S1..S5 and X1..X5 (batch norms with running statistics)."""
    three = iter([call for call in trace if call.norm is not None and call.conv.weight.shape[-1] == 3])
    one = iter([call for call in trace if call.norm is not None and call.conv.weight.shape[-1] == 1])
    up = iter([call.conv for call in trace if isinstance(call.conv, nn.ConvTranspose2d)])
    s = [normed(x, next(three)).relu()]
    h = F.max_pool2d(s[0], kernel_size=2, stride=2)
    for blocks, first_stride in ((3, 1), (4, 2), (6, 2), (3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            y = normed(normed(h, next(three), stride).relu(), next(three))
            h = (y + (normed(h, next(one), stride) if stride == 2 else h)).relu()
        s.append(h)
    h = normed(normed(h, next(three)).relu(), next(three)).relu()
    d = [h]
    for skip in reversed(s[:4]):
        conv = next(up)
        h = torch.cat([F.conv_transpose2d(h, conv.weight, conv.bias, stride=2), skip], dim=1)
        h = normed(normed(h, next(three)).relu(), next(three)).relu()
        d.insert(0, h)
    assert next(three, None) is next(one, None) is next(up, None) is None
    return s, d


def at_full_size(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def oracle_logits(model: ResUNet, trace: Sequence[Call], x: torch.Tensor, variant: dict[str, Any]) -> torch.Tensor:
    _, d = oracle_features(trace, x)
    fused, size = d[0], x.shape[2:]
    if variant.get("fusion", "attention") != "none":
        fusion = next(m for m in model.modules() if hasattr(m, "project"))
        u = [project(at_full_size(d_i, size)) for project, d_i in zip(fusion.project, d, strict=True)]
        if variant.get("fusion") == "add":
            fused = u[0] + u[1] + u[2] + u[3] + u[4]
        elif variant.get("fusion") == "concat":
            fused = fusion.merge(torch.cat(u, dim=1))
        else:
            p = [gate(u_i).sigmoid() for gate, u_i in zip(fusion.gates, u, strict=True)]
            y = [p_i * u_i for p_i, u_i in zip(p, u, strict=True)]
            lower = sum(y[0 if variant.get("include_top") else 1 :])
            top = u[0] if variant.get("residual") == "projected" else d[0]
            fused = top + y[0] + (1 - p[0]) * lower
    return trace[-1].conv(fused)


@pytest.mark.parametrize("variant", FUSIONS, ids=variant_name)
def test_forward_is_the_specifications(variant: dict[str, Any]) -> None:
    model, x = network(**variant).eval(), image(2, 1, 32, 48)
    logits, trace = calls(model, x)
    with torch.no_grad():
        expected = oracle_logits(model, trace, x, variant)
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "stages",
    [
        {},
        {"edge_stages": (), "mask_stages": (1, 2, 3, 4, 5)},
        {"edge_stages": (1, 2, 3, 4, 5), "mask_stages": ()},
        {"edge_stages": (2, 4), "mask_stages": (1, 5)},
        {
            "edge_stages": (1, 2),
            "mask_stages": (3, 4, 5),
            "edge_stages_dec": (1, 3),
            "mask_stages_dec": (2, 5),
        },
        {"edge_stages": (), "mask_stages": (), "edge_stages_dec": (1, 2), "mask_stages_dec": (3, 4, 5)},
        {"edge_stages": (3,), "mask_stages": (1,), "edge_stages_dec": (4,)},
    ],
)
def test_channels_after_the_first_are_the_heads_in_order(stages: dict[str, Any]) -> None:
    """Main map, edge heads (encoder, decoder), mask heads (encoder, decoder):
    each on its own stage."""
    model, x = frozen_statistics(network(**stages)), image(2, 1, 32, 48)
    logits, trace = calls(model, x)
    asked = {
        "edge_stages": (1, 2),
        "mask_stages": (3, 4, 5),
        "edge_stages_dec": (),
        "mask_stages_dec": (),
        **stages,
    }
    with torch.no_grad():
        s, d = oracle_features(trace, x)
        order = [s[i - 1] for i in asked["edge_stages"]] + [d[i - 1] for i in asked["edge_stages_dec"]]
        n_edge = len(order)
        order += [s[i - 1] for i in asked["mask_stages"]] + [d[i - 1] for i in asked["mask_stages_dec"]]
        owned = {id(head) for m in model.modules() if isinstance(m, SupervisionHeads) for head in m.heads}
        heads = [call for call in trace if id(call.conv) in owned]
        assert len(heads) == len(order)
        expected = []
        for stage in order:
            same = [c for c in heads if c.given.shape == stage.shape and torch.allclose(c.given, stage)]
            assert len(same) == 1
            expected.append(at_full_size(same[0].conv(stage), x.shape[2:]))
    assert (model.edge_heads, model.mask_heads) == (n_edge, len(order) - n_edge)
    torch.testing.assert_close(logits[:, 1:], torch.cat(expected, dim=1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits[:, :1], model.eval()(x), rtol=1e-9, atol=1e-9)
