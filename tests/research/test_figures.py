"""Maps of the paper's figures against the network's own answers, and the files of the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError
from scripts.inference.building import preprocessing_from_metadata
from scripts.inference.metadata import read_metadata
from scripts.networks.registry import create_network
from scripts.research import figures
from scripts.research.figures import agreement, figure_files, fusion_maps, stage_maps, tell_apart, truth_maps
from tests.bundle_runner import run_command


def image() -> torch.Tensor:
    return torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))


def test_stage_maps_are_what_training_mode_returns() -> None:
    torch.manual_seed(0)
    network = create_network("resunet", base_width=4, edge_stages=[1, 2, 3, 4, 5], mask_stages=[], mask_stages_dec=[2])
    found = stage_maps(network.eval(), image())
    assert list(found) == ["S1 edge", "S2 edge", "S3 edge", "S4 edge", "S5 edge", "X2 mask"]
    for module in network.modules():  # training mode's outputs with evaluation's norms
        module.training = False
    network.training = True
    with torch.no_grad():
        expected = torch.sigmoid(network(image()))[0, 1:].numpy()
    np.testing.assert_allclose(np.stack(list(found.values())), expected, atol=1e-6)


def test_fusion_maps_are_the_algorithms() -> None:
    torch.manual_seed(1)
    network = create_network("resunet", base_width=4).eval()
    found = fusion_maps(network, image())
    np.testing.assert_allclose(found["P1"] + found["1 - P1"], 1, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(found["Sp"], torch.sigmoid(network(image()))[0, 0].numpy(), atol=1e-6)
        decoded = network.decoder(network.encoder(image()))
        finest = network.fusion.project[0](decoded[0])
        gate = torch.sigmoid(network.fusion.gates[0](finest))
    np.testing.assert_allclose(found["P1"], gate[0, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found["Y1, mean"], (gate * finest).mean(dim=1)[0].numpy(), atol=1e-6)


def test_truth_is_what_a_training_sees() -> None:
    truth = np.zeros((4, 6), bool)
    truth[1:3, 2:5] = True
    found = truth_maps(truth, torch.zeros(1, 1, 8, 12))
    expected = np.kron(truth, np.ones((2, 2)))
    np.testing.assert_array_equal(found["ground truth"], expected)
    edge = expected.copy()
    edge[3:5, 5:9] = 0  # the inside of a rectangle of 4 x 6
    np.testing.assert_array_equal(found["edge of the ground truth"], edge)


def test_the_last_panel_is_the_ground_truth(
    make_scan: Callable[..., tuple[Path, Path]],
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan, truth = make_scan()
    panels: dict[str, list[str]] = {}
    monkeypatch.setattr(figures, "_draw", lambda drawn, title, path: panels.update({path.name: [n for n, _ in drawn]}))
    figure_files(scan, tmp_path / "with", [make_checkpoint(tmp_path / "model.pt")], truth, device="cpu")
    assert panels["fusion.png"] == ["input", "P1", "1 - P1", "Y1, mean", "Sp", "ground truth"]
    assert panels["stages.png"][-2:] == ["ground truth", "edge of the ground truth"]
    figure_files(scan, tmp_path / "without", [tmp_path / "model.pt"], device="cpu")
    assert panels["fusion.png"][-1] == "Sp"


def test_colours_tell_found_missed_and_wrong_apart() -> None:
    hu = np.full((4, 3), -1350, np.float32)
    mask, truth = np.zeros((4, 3), bool), np.zeros((4, 3), bool)
    mask[0, 0] = mask[1, 0] = truth[0, 0] = truth[2, 0] = True
    picture = agreement(hu, mask, truth)
    assert picture.shape == (3, 4, 3)
    colours = [tuple(np.round(picture[0, x], 3)) for x in range(4)]
    assert len(set(colours)) == 4
    assert colours[3] == (0, 0, 0)
    assert np.argmax(colours[0]) == 1  # found: green


def test_files(
    make_scan: Callable[..., tuple[Path, Path]], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    scan, truth = make_scan()
    weights = [make_checkpoint(tmp_path / name / "model.pt", seed=seed) for seed, name in enumerate(("a", "b"))]
    out = figure_files(scan, tmp_path / "out", weights, truth, device="cpu")
    assert {path.name for path in out.iterdir()} == {"comparison.png", "stages.png", "fusion.png"}
    assert all(imread(path).std() > 0.05 for path in out.iterdir())
    with pytest.raises(UserError, match="out: exists"):
        figure_files(scan, out, weights)
    before = (out / "comparison.png").read_bytes()
    figure_files(scan, out, weights[:1], truth, slice_from_inferior=1, device="cpu", overwrite=True)
    assert (out / "comparison.png").read_bytes() != before
    with pytest.raises(UserError, match="--slice 7 of 6"):
        figure_files(scan, tmp_path / "new", weights, slice_from_inferior=7)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [("--weights", "a.pt,b.pt"), ("--weights", "a.pt", "--weights=b.pt")])
def test_no_weights_of_several_are_dropped(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[str]] = []
    monkeypatch.setattr(figures, "figure_files", lambda scan, out, weights, *_: taken.append(weights))
    run_command("figures", "scan.nii.gz", "out", *words)
    assert taken == [["a.pt", "b.pt"]]


def test_stages_and_fusion_are_of_what_the_network_sees(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), path)
    weights = make_checkpoint(tmp_path / "model.pt", steps={"field_of_view": "lungs"})
    drawn = {}
    monkeypatch.setattr(
        "scripts.research.figures._draw", lambda panels, title, file: drawn.update({file.name: dict(panels)})
    )
    figure_files(path, tmp_path / "out", [weights], slice_from_inferior=20, device="cpu")
    seen = preprocessing_from_metadata(read_metadata(weights))({"image": str(path)})["image"]
    assert set(drawn) == {"comparison.png", "stages.png", "fusion.png"}
    for file in ("stages.png", "fusion.png"):
        np.testing.assert_allclose(drawn[file]["input"], seen[0, ..., 19].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/t3/C_5/run/model.pt", "/a/t2/C_2/run/model.pt", "/a/cares/run/model.pt"], ["t3/C_5", "t2/C_2", "cares"]),
        (["out/model.pt"], ["model.pt"]),
        (["out/a.pt", "out/b.pt"], ["a.pt", "b.pt"]),
        (["out/model.pt", "out/model.pt"], ["model.pt", "model.pt"]),
        (["model.pt", "out/model.pt"], ["model.pt", "out/model.pt"]),
        (["a/x/b/model.pt", "a/y/c/model.pt"], ["x/b", "y/c"]),
    ],
)
def test_weights_are_named_by_what_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert tell_apart([Path(path) for path in paths]) == names
