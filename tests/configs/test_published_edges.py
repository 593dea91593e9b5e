"""Published edges in place of those of the masks: what a training then sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from scripts.data.datalist import select_cases
from scripts.errors import UserError

OVERLAY = "presets/published_edges.yaml"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A picture whose published edge is another shape than its mask, in two folds."""
    mask, edge = np.zeros((2, 32, 32), np.uint8)
    mask[8:20, 10:24] = 1
    edge[4:7, 2:30] = 255
    image = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    cases = []
    for fold in (0, 1):
        for key, values in (("image", image), ("label", mask), ("edge", edge)):
            Image.fromarray(values).save(tmp_path / f"{key}{fold}.png")
        files = {key: f"{key}{fold}.png" for key in ("image", "label", "edge")}
        cases.append({"name": f"case{fold}", "fold": fold, "patient": None, **files})
    (tmp_path / "datalist.json").write_text(json.dumps({"training": cases}))
    return tmp_path


def parse(bundle_root: Path, data: Path, *overlays: str, **settings: object) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([bundle_root / "configs" / file for file in ("train.yaml", *overlays)])
    own = {"bundle_root": str(bundle_root), "dataset_dir": str(data), "device": "cpu", "spatial_size": 16}
    parser.update(
        {**own, "output_dir": "run", "network_def#base_width": 4, "cache_dir": str(data / "kept"), **settings}
    )
    return parser


@pytest.mark.parametrize("time", ["made", "found on disk"])
def test_a_training_learns_from_the_published_edge(bundle_root: Path, pictures: Path, time: str) -> None:
    for _ in range(1 if time == "made" else 2):
        parser = parse(bundle_root, pictures, OVERLAY)
        (item,) = parser.get_parsed_content("train#dataset")
    nearest = [2 * k + 1 for k in range(16)]
    for channel, key, full in ((0, "label1", 1), (1, "edge1", 255)):
        stored = np.asarray(Image.open(pictures / f"{key}.png")) == full
        expected = torch.from_numpy(stored.T[np.ix_(nearest, nearest)]).float()
        assert torch.equal(torch.as_tensor(item["label"])[channel], expected)
    assert "edge" not in item
    parser.get_parsed_content("checkpoint_metadata#preprocessing")  # the metadata can state the chains
    (checked,) = parser.get_parsed_content("validate#dataset")
    (computed,) = parse(bundle_root, pictures).get_parsed_content("validate#dataset")
    assert torch.equal(torch.as_tensor(checked["label"]), torch.as_tensor(computed["label"]))


def test_edges_are_moved_with_their_masks(bundle_root: Path, pictures: Path) -> None:
    for fold in (0, 1):
        (pictures / f"edge{fold}.png").write_bytes((pictures / f"label{fold}.png").read_bytes())
    dataset = parse(bundle_root, pictures, OVERLAY, augment=True).get_parsed_content("train#dataset")
    seen = set()
    for epoch in range(6):
        dataset.set_epoch(epoch)
        mask, edge = torch.as_tensor(dataset[0]["label"])
        assert torch.equal(mask, edge)
        seen.add(mask.numpy().tobytes())
    assert len(seen) > 3


def test_a_case_without_a_published_edge_is_refused(pictures: Path) -> None:
    content = json.loads((pictures / "datalist.json").read_text())
    del content["training"][1]["edge"]
    (pictures / "datalist.json").write_text(json.dumps(content))
    assert [set(case) & {"edge"} for case in select_cases(pictures, "training")] == [set(), set()]
    assert "edge" in select_cases(pictures, "training", 1, edges=True)[0]
    with pytest.raises(UserError, match=r"1 of 2 cases have no published edge \(case1\)"):
        select_cases(pictures, "training", edges=True)
