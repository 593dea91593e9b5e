from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from scripts.data.class_slices import ClassSliceDataset
from scripts.data.datalist import select_cases
from scripts.data.stacks import LEVELS
from scripts.errors import UserError
from scripts.research.priors import class_cases
from tests.chains import network_grid, training_input

MakeDataset = Callable[..., Path]
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]


def picture_case(folder: Path, codes: np.ndarray, grey: bool = False) -> dict[str, object]:
    """A picture with its multi-class label, as palette or turned to grey,
    whose prior is not the mask."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, codes.shape, dtype=np.uint8)).save(folder / "image.png")
    label = Image.fromarray(codes)
    label.putpalette(PALETTE)
    (label.convert("L") if grey else label).save(folder / "classes.png")
    Image.fromarray((codes > 0) * np.uint8(255)).save(folder / "label.png")
    prior = np.zeros_like(codes)
    prior[:, 0] = 51
    Image.fromarray(prior).save(folder / "prior.png")
    files = {key: str(folder / f"{key}.png") for key in ("image", "label", "classes", "prior")}
    return {"name": "a", "prior_scale": 255, **files}


@pytest.mark.parametrize("grey", [False, True])
def test_codes_keep_their_place_and_value(grey: bool, tmp_path: Path) -> None:
    """A label of 8 x 8 stretched to 16 x 16: every code twice in each direction and none between,
    as bilinear has."""
    codes = np.random.default_rng(1).integers(0, 3, (8, 8)).astype(np.uint8)
    dataset = ClassSliceDataset([picture_case(tmp_path, codes, grey)], network_grid(size=16))
    expected = codes.T.repeat(2, 0).repeat(2, 1)  # x first
    item = dataset[0]
    np.testing.assert_array_equal(item["label"][0].numpy(), expected)
    np.testing.assert_allclose(item["prior"][0].numpy()[:2], 0.2, atol=0.5 / LEVELS)  # 51 / 255
    assert not item["prior"][0].numpy()[2:].any()
    served = ClassSliceDataset(
        [picture_case(tmp_path, codes, grey)], network_grid(size=16), transform=training_input("multiclass")
    )[0]
    assert (served["image"].shape, served["label"].shape) == ((2, 16, 16), (3, 16, 16))
    assert torch.equal(served["image"][1], item["prior"][0])
    for number in range(3):  # one map a class, in the order of the classes
        np.testing.assert_array_equal(served["label"][number].numpy(), expected == number)


def test_an_unknown_code_is_refused(tmp_path: Path) -> None:
    codes = np.zeros((8, 8), np.uint8)
    case = picture_case(tmp_path, codes)
    codes[2, 3] = 3
    Image.fromarray(codes).save(tmp_path / "classes.png")
    with pytest.raises(UserError, match=r"classes\.png: holds the values 3"):
        ClassSliceDataset([case], network_grid(size=16))


def test_volumes_with_the_mask_as_prior(make_class_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_class_dataset(cases=2, shape=(32, 32, 6))
    cases = class_cases(str(folder), "all", None, "truth", str(tmp_path), "cpu")
    dataset = ClassSliceDataset(cases, network_grid(size=32), cache_dir=str(tmp_path / "cache"))
    assert len(dataset) == 12
    for number, case in enumerate(select_cases(folder, "all")):
        classes = np.asarray(nib.load(case["classes"]).dataobj)
        assert set(np.unique(classes)) == {0, 1, 2}
        for z in range(6):
            item = dataset[6 * number + z]
            np.testing.assert_array_equal(item["label"][0].numpy(), classes[..., z])
            np.testing.assert_array_equal(item["prior"][0].numpy(), classes[..., z] > 0)
    again = ClassSliceDataset(cases, network_grid(size=32), cache_dir=str(tmp_path / "cache"))
    assert all(torch.equal(dataset[i][key], again[i][key]) for i in range(12) for key in ("image", "prior", "label"))
    infected = ClassSliceDataset(cases, network_grid(size=32), sampling="infected")
    assert len(infected) == 8  # 4 of 6 slices each


def test_an_epoch_is_a_function_of_seed_and_epoch(make_class_dataset: MakeDataset, tmp_path: Path) -> None:
    cases = class_cases(str(make_class_dataset(cases=1, folds=1)), "all", None, "truth", str(tmp_path), "cpu")
    first, second = (
        ClassSliceDataset(cases, network_grid(size=32), transform=training_input("multiclass", augment=True))
        for _ in "ab"
    )
    assert torch.equal(first[2]["image"], second[2]["image"])
    second.set_epoch(1)
    assert not torch.equal(first[2]["image"], second[2]["image"])
