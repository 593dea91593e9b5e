"""Lungs by a network: which map counts, on which grid, and which weights are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.data.datalist import describe
from scripts.errors import UserError
from scripts.files import read_json, write_json
from scripts.inference.building import require_slices
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.inferer import ScanInferer
from scripts.inference.lung_network import THRESHOLD, LungNetwork, load_lung_network
from scripts.inference.metadata import read_metadata, write_checkpoint
from scripts.io.reading import read_scan
from scripts.networks.registry import create_network
from scripts.pipeline.lung_masks import lung_files, own_lungs
from scripts.transforms.slice_input import resize_slice
from tests.doc_scripts import load_script

CPU = torch.device("cpu")
SEEN = {"window": [-1250, 250], "intensity": "auto", "z_score": False, "patch_size": [32, 32, 4]}


@pytest.fixture
def make_lung_weights(tmp_path: Path) -> Callable[..., Path]:
    """Weights whose lungs are the voxels brighter than the middle of the window, or darker."""

    def make(sign: float = 1.0, size: int = -1) -> Path:
        torch.manual_seed(0)
        network = create_network("fv_paspp_unet3d", base_width=2, out_channels=2, paspp=False, variation="none")
        state = network.state_dict()
        for key in state:  # the image goes through the finest level alone, two channels wide
            if key.endswith(("weight", "bias")) and "adn" not in key:
                state[key].zero_()
        state["down.0.0.conv.weight"][0, 0, 1, 1, 1] = 1
        state["down.0.1.conv.weight"][0, 0, 1, 1, 1] = 1
        state["up.3.0.conv.weight"][0, 0, 1, 1, 1] = 1
        state["up.3.1.conv.weight"][0, 0, 1, 1, 1] = 1
        state["out.weight"][1, 0] = 20 * sign
        state["out.bias"][1] = -10 * sign
        path = tmp_path / f"lungs_{sign}_{size}.pt"
        about = {"data": {"name": "x"}, "figures": {}, "targets": ["infection", "lungs"]}
        write_checkpoint(path, state, network=network.spec, preprocessing={**SEEN, "size": size}, **about)
        return path

    return make


@pytest.mark.parametrize("size", [-1, 64])
def test_the_second_map_comes_back_to_the_scan_s_grid(
    size: int, make_lung_weights: Callable[..., Path], make_scan: Callable[..., tuple[Path, Path]]
) -> None:
    scan = read_scan(make_scan(shape=(64, 48, 6))[0])
    slices = HounsfieldSlices(scan)
    found = LungNetwork(make_lung_weights(size=size), CPU).find(scan, slices)
    mask = np.stack([found.slab(z) > 0 for z in range(6)], axis=-1)
    bright = np.stack([slices[z].numpy() > -500 for z in range(6)], axis=-1)
    assert mask.shape == bright.shape == slices.shape
    assert (mask == bright).mean() > (0.999 if size == -1 else 0.7)  # resized to 64 x 64 and back, noise is smoothed
    assert found.notes[0].startswith("The lungs were found by the network lungs_")


def test_slices_are_streamed_to_the_mask_of_all_at_once(tmp_path: Path, make_scan) -> None:
    torch.manual_seed(0)
    network = create_network("resunet", base_width=4, out_channels=2, deep_supervision=False)
    about = {"data": {"name": "x"}, "figures": {}, "targets": ["infection", "lungs"]}
    seen = {"window": [-1250, 250], "intensity": "auto", "z_score": True, "size": 32}
    write_checkpoint(tmp_path / "m.pt", network.state_dict(), network=network.spec, preprocessing=seen, **about)
    scan = read_scan(make_scan(shape=(40, 36, 19))[0])
    slices = HounsfieldSlices(scan)
    model = LungNetwork(tmp_path / "m.pt", CPU)
    inputs = torch.stack([model.slice_input(slices[z]) for z in range(19)], dim=-1)
    maps = torch.sigmoid(model.predictor(inputs[None, None], "scan"))[0, 0]
    expected = np.stack([resize_slice(maps[..., z].contiguous(), (40, 36)) >= THRESHOLD for z in range(19)], axis=-1)
    depths, predictor = [], model.predictor

    def predict(images: torch.Tensor, name: Path) -> torch.Tensor:
        depths.append(images.shape[-1])
        return predictor(images, name)

    predict.inferer = predictor.inferer
    model.predictor = predict
    lungs = model.find(scan, slices)
    found = np.stack([lungs.slab(z) > 0 for z in range(19)], axis=-1)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(found, expected)
    assert depths == [8, 8, 3]


def test_other_workflows_take_the_map_of_infection(make_lung_weights: Callable[..., Path]) -> None:
    metadata = read_metadata(make_lung_weights(size=32))
    network = torch.nn.Conv3d(1, 2, 1)
    image = torch.randn(1, 1, 32, 32, 4)
    both = ScanInferer(metadata, every_target=True)(image, network)
    assert both.shape == (1, 2, 32, 32, 4)
    assert torch.equal(ScanInferer(metadata)(image, network), both[:, :1])
    with pytest.raises(UserError, match="sees volumes"):
        require_slices(metadata, "model.pt")


def test_a_scan_without_lungs_is_refused(make_lung_weights: Callable[..., Path], make_scan) -> None:
    scan = read_scan(make_scan(shape=(64, 48, 6))[0])
    scan.values[:] = -1200
    with pytest.raises(UserError, match=r"\.pt finds no lungs; expected: a chest CT, or a lung mask"):
        LungNetwork(make_lung_weights(), CPU).find(scan, HounsfieldSlices(scan, "hu"))


def test_weights_that_find_no_lungs_are_refused(weights: Path) -> None:
    with pytest.raises(UserError, match=r"resunet finds no lungs; expected: weights of configs/lungs\.yaml"):
        LungNetwork(weights, CPU)


def test_weights_are_loaded_once_and_anew_when_they_change(make_lung_weights: Callable[..., Path]) -> None:
    path = make_lung_weights()
    first = load_lung_network(path, CPU)
    assert load_lung_network(path, CPU) is first
    assert lung_files(path) == [path, path.with_suffix(".json")]
    stated = read_json(path.with_suffix(".json"))
    stated["preprocessing"]["window"] = [-1000, 400]
    write_json(path.with_suffix(".json"), stated)
    second = load_lung_network(path, CPU)
    assert second.slice_input.window == (-1000.0, 400.0) != first.slice_input.window
    other = make_lung_weights(-1.0)
    other.replace(path)
    other.with_suffix(".json").replace(path.with_suffix(".json"))
    assert load_lung_network(path, CPU) is not second
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"its metadata .*\.json is missing"):
        load_lung_network(path, CPU)


def test_an_image_has_no_lungs_to_find(make_lung_weights: Callable[..., Path], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "slice.png")
    scan = read_scan(tmp_path / "slice.png")
    assert own_lungs(make_lung_weights(), scan, HounsfieldSlices(scan), CPU) is None


def test_lungs_are_measured_on_the_list_that_the_weights_were_trained_on(
    make_checkpoint: Callable[..., Path], make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    data = str(make_dataset(cases=2, folds=2))
    weights = make_checkpoint(tmp_path / "model.pt", data=describe(data, 0) | {"seed": 1})
    with pytest.raises(UserError, match="was validated on fold 0 of other data"):
        next(load_script("measure_lungs").rows(data, weights))
