"""Res2Net against the released weights' names and shapes and against its formula,
functional and by these names."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from scripts.errors import UserError
from scripts.networks.infnet.pretrained import create_pretrained
from scripts.networks.infnet.res2net import Res2Net, Res2NetBlock, load_imagenet_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LAYERS = ((3, 64, 26), (4, 128, 52), (6, 256, 104), (3, 512, 208))  # blocks, planes, channels of a scale


def narrow(seed: int = 0, width: int = 16) -> Res2Net:
    """A narrow network in float64 whose norms are no identities."""
    torch.manual_seed(seed)
    network = Res2Net(base_width=width).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                torch.nn.init.uniform_(value, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_var, 1, 2)
    return network


def released() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the released weights without fc."""

    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for entry in NORM:
            yield f"{name}.{entry}", () if entry == "num_batches_tracked" else (channels,)

    yield "conv1.0.weight", (32, 3, 3, 3)
    yield from norm("conv1.1", 32)
    yield "conv1.3.weight", (32, 32, 3, 3)
    yield from norm("conv1.4", 32)
    yield "conv1.6.weight", (64, 32, 3, 3)
    yield from norm("bn1", 64)
    before = 64
    for layer, (blocks, planes, width) in enumerate(LAYERS, start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            yield f"{name}.conv1.weight", (4 * width, before, 1, 1)
            yield from norm(f"{name}.bn1", 4 * width)
            for scale in range(3):
                yield f"{name}.convs.{scale}.weight", (width, width, 3, 3)
                yield from norm(f"{name}.bns.{scale}", width)
            yield f"{name}.conv3.weight", (4 * planes, 4 * width, 1, 1)
            yield from norm(f"{name}.bn3", 4 * planes)
            if block == 0:
                yield f"{name}.downsample.1.weight", (4 * planes, before, 1, 1)
                yield from norm(f"{name}.downsample.2", 4 * planes)
            before = 4 * planes


def test_parameters_without_the_dead_classifier() -> None:
    """25,718,352 are published; 2048 * 1000 + 1000 of them are a classifier that no feature
    needs."""
    with torch.device("meta"):
        network = Res2Net()
    assert sum(p.numel() for p in network.parameters()) == 25_718_352 - 2_049_000 == 23_669_352
    assert not any(isinstance(module, torch.nn.Linear) for module in network.modules())


def test_names_and_shapes_are_those_of_the_released_weights() -> None:
    with torch.device("meta"):
        found = {name: tuple(value.shape) for name, value in Res2Net().state_dict().items()}
    expected = dict(released())
    assert found == expected
    assert len(expected) == 524 - 2


# ------------------------------------------------------------------------------------ the formula


def norm(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    weight, bias, mean, var = (state[f"{name}.{entry}"].view(-1, 1, 1) for entry in NORM[:4])
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def block(x: torch.Tensor, state: dict[str, torch.Tensor], name: str, stride: int, first: bool) -> torch.Tensor:
    reduced = norm(F.conv2d(x, state[f"{name}.conv1.weight"]), state, f"{name}.bn1").relu()
    x1, x2, x3, x4 = reduced.chunk(4, dim=1)

    def k(part: torch.Tensor, scale: int) -> torch.Tensor:
        y = F.conv2d(part, state[f"{name}.convs.{scale}.weight"], stride=stride, padding=1)
        return norm(y, state, f"{name}.bns.{scale}").relu()

    if first:
        y1, y2, y3, y4 = k(x1, 0), k(x2, 1), k(x3, 2), F.avg_pool2d(x4, 3, stride, 1)
        shortcut = F.avg_pool2d(x, stride)
        shortcut = norm(F.conv2d(shortcut, state[f"{name}.downsample.1.weight"]), state, f"{name}.downsample.2")
    else:
        y1 = k(x1, 0)
        y2 = k(x2 + y1, 1)
        y3 = k(x3 + y2, 2)
        y4, shortcut = x4, x
    y = F.conv2d(torch.cat([y1, y2, y3, y4], dim=1), state[f"{name}.conv3.weight"])
    return (norm(y, state, f"{name}.bn3") + shortcut).relu()


def features(image: torch.Tensor, state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    x = norm(F.conv2d(image, state["conv1.0.weight"], stride=2, padding=1), state, "conv1.1").relu()
    x = norm(F.conv2d(x, state["conv1.3.weight"], padding=1), state, "conv1.4").relu()
    x = norm(F.conv2d(x, state["conv1.6.weight"], padding=1), state, "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    found = []
    for layer, (blocks, _, _) in enumerate(LAYERS, start=1):
        for index in range(blocks):
            first = index == 0
            x = block(x, state, f"layer{layer}.{index}", stride=2 if first and layer > 1 else 1, first=first)
        found.append(x)
    return found


def test_features_are_the_formulas_by_the_released_names() -> None:
    network = narrow()
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network(image)
        expected = features(image, network.state_dict())
    sizes = [(2, 64, 16, 24), (2, 128, 8, 12), (2, 256, 4, 6), (2, 512, 2, 3)]
    assert [tuple(x.shape) for x in found] == sizes
    assert network.channels == [size[1] for size in sizes]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_scales_hand_on_except_in_first_blocks() -> None:
    """How far a block sees: 7 pixels through the third scale of a normal block,
    3 in a first one."""
    for first, reach in ((False, 7), (True, 3)):
        torch.manual_seed(0)
        one = Res2NetBlock(64, 16, first=first).double().eval()
        x = torch.zeros(1, 64, 15, 15, dtype=torch.float64, requires_grad=True)
        one(x + 1)[0, :, 7, 7].sum().backward()
        columns = x.grad.abs().sum(dim=(0, 1, 2)) > 0
        assert int(columns.sum()) == reach


def test_an_odd_size_keeps_its_border() -> None:
    """Strided shortcuts pool with ceil mode,
    so that they are as large as the strided convolutions."""
    with torch.no_grad():
        sizes = [tuple(x.shape[2:]) for x in narrow()(torch.zeros(1, 3, 70, 90, dtype=torch.float64))]
    assert sizes == [(18, 23), (9, 12), (5, 6), (3, 3)]


# -------------------------------------------------------------------------------- released weights


def weights(network: Res2Net) -> dict[str, torch.Tensor]:
    """What the released file would hold for a network of this width."""
    classifier = {"fc.weight": torch.zeros(1000, network.channels[-1]), "fc.bias": torch.zeros(1000)}
    return {**network.state_dict(), **classifier}


@pytest.mark.parametrize("counted", [True, False])
def test_released_weights_load(tmp_path: Path, counted: bool) -> None:
    trained, fresh = narrow(seed=1), narrow(seed=2)
    content = {k: v for k, v in weights(trained).items() if counted or not k.endswith("num_batches_tracked")}
    torch.save(content, tmp_path / "weights.pth")
    load_imagenet_weights(fresh, tmp_path / "weights.pth")
    for name, value in trained.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("layer2.1.convs.0.weight"), r"1 missing \(layer2\.1\.convs\.0\.weight\)"),
        (lambda w: w.update({"layer1.0.se.weight": torch.zeros(1)}), r"1 unknown \(layer1\.0\.se\.weight\)"),
        (lambda w: w.update({"bn1.bias": torch.zeros(5)}), r"1 of another shape \(bn1\.bias\)"),
    ],
)
def test_entries_that_do_not_fit_are_refused(tmp_path: Path, change, said: str) -> None:
    network, path = narrow(seed=3), tmp_path / "weights.pth"
    before = {name: value.clone() for name, value in network.state_dict().items()}
    content = weights(narrow(seed=1))
    change(content)
    torch.save(content, path)
    with pytest.raises(UserError, match=rf"weights\.pth: entries do not fit: {said}"):
        load_imagenet_weights(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Harmful:
    """A pickle that would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_other_files_are_refused_and_not_run(tmp_path: Path) -> None:
    network = narrow()
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful(tmp_path / "ran"), protocol=2))
    torch.save({"state_dict": Harmful(tmp_path / "ran")}, tmp_path / "harmful_zip.pth")
    for name in ("text", "empty", "list", "harmful", "harmful_zip", "absent"):
        with pytest.raises(UserError, match=rf"{name}\.pth: .*; expected: ImageNet weights of Res2Net-50"):
            load_imagenet_weights(network, tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


def test_a_network_starts_from_them_and_its_metadata_does_not_ask_for_them(tmp_path: Path) -> None:
    trained = narrow(seed=1).float()
    torch.save(weights(trained), tmp_path / "weights.pth")
    network = create_pretrained("infnet", imagenet_weights=str(tmp_path / "weights.pth"), base_width=16)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, network.backbone.state_dict()[name]), name
    assert network.spec == {"name": "infnet", "arguments": {"base_width": 16}}
    with pytest.raises(UserError, match=r"of another shape"):
        create_pretrained("infnet", imagenet_weights=str(tmp_path / "weights.pth"), base_width=8)
    with pytest.raises(UserError, match="network unet"):
        create_pretrained("unet", imagenet_weights=str(tmp_path / "weights.pth"), base_width=4)


def test_without_weights_the_network_is_the_registrys() -> None:
    torch.manual_seed(0)
    network = create_pretrained("unet", base_width=4)
    assert network.spec == {"name": "unet", "arguments": {"base_width": 4}}
