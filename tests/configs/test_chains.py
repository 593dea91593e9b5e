"""Chains of transforms in the configs: one step at a time, and what metadata can state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import DataLoader, MetaTensor, decollate_batch
from monai.transforms import Compose, MapTransform

from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError, find_user_error
from scripts.inference.metadata import completed_preprocessing
from scripts.transforms.postprocessing import EvaluationOutput
from tests.chains import chain


def jittered(transform: Any) -> int:
    """In how many of 100 slices the window is not that of the settings."""
    hu = torch.linspace(-1400, 400, 64).reshape(1, 8, 8)
    found = 0
    for seed in range(100):
        transform.set_random_state(seed=seed)
        seen = transform.transforms[4]({"image": hu})["image"]
        found += not torch.equal(torch.as_tensor(seen), ((hu + 1250) / 1500).clamp(0, 1))
    return found


@pytest.mark.parametrize(("prob", "least", "most"), [(None, 100, 100), (0.2, 10, 30)])
def test_one_probability_is_set_on_the_command_line(
    prob: float | None, least: int, most: int, bundle_root: Path
) -> None:
    given = {} if prob is None else {"train#preprocessing#transforms#4#prob": prob}
    flow = ConfigWorkflow(str(bundle_root / "configs/train.yaml"), logging_file=False, augment="true", **given)
    flow.parser.parse()
    transform = flow.parser.get_parsed_content("train#preprocessing")
    assert least <= jittered(transform) <= most
    assert flow.parser.get_parsed_content("checkpoint_metadata#preprocessing")["z_score"] is True


def refused(*overlays: str, **settings: Any) -> str:
    with pytest.raises((UserError, RuntimeError)) as caught:
        chain("checkpoint_metadata#preprocessing", *overlays, **settings)
    return str(find_user_error(caught.value))


@pytest.mark.parametrize(
    ("changed", "value", "said"),
    [
        ("image_grid#transforms#2#axcodes", "RAS", "Orientationd stands where"),
        ("network_input#transforms#0#a_min", -1000, "ScaleIntensityRanged with other arguments"),
        ("train#preprocessing#transforms#4#window", [-1000, 0], "train#preprocessing: ScaleIntensityRanged"),
        ("train#preprocessing#transforms#7", {"_target_": "NormalizeIntensityd", "keys": "image"}, "Normalize"),
        ("train#preprocessing#transforms#7#_disabled_", True, "the end stands where checkpoint metadata state SliceZ"),
    ],
)
def test_a_step_that_metadata_cannot_state_is_refused(changed: str, value: Any, said: str) -> None:
    text = refused(**{changed: value})
    assert said in text
    assert "expected: " in text


def test_random_steps_and_those_of_the_label_are_free() -> None:
    gamma = {"_target_": "RandAdjustContrastd", "keys": "image", "prob": 0.5}
    settings = {"train#preprocessing#transforms#6": gamma, "edge_method": "sobel", "augment": True}
    assert chain("checkpoint_metadata#preprocessing", **settings)["size"] == 256


@pytest.mark.parametrize(
    ("overlays", "settings"),
    [
        ((), {"lung_only": "true", "field_of_view": "lungs", "z_score": "false", "intensity": "hu"}),
        (("multiclass",), {"z_score": "false", "augment": "true", "prior": "truth"}),
        (("networks/fv_paspp_unet3d",), {}),
        (("monai_label",), {}),
    ],
)
def test_settings_and_overlays_are_recorded(overlays: tuple[str, ...], settings: dict[str, Any]) -> None:
    recorded = chain("checkpoint_metadata#preprocessing", *overlays, **settings)
    assert (recorded["size"], recorded["window"]) == (256, [-1250, 250])
    if "multiclass" in overlays:
        assert recorded["z_score"] is False
    if not overlays:
        assert (recorded["lung_only"], recorded["z_score"], recorded["field_of_view"]) == (True, False, "lungs")


@pytest.mark.parametrize("overlays", [("multiclass",), ("evaluate", "evaluate_multiclass")])
@pytest.mark.parametrize("settings", [("lungs", "false"), ("scan", "true")])
def test_less_than_the_prior_shows_is_refused(overlays: tuple[str, ...], settings: tuple[str, str]) -> None:
    with pytest.raises((UserError, RuntimeError)) as caught:
        chain("switch#crop", *overlays, field_of_view=settings[0], lung_only=settings[1])
    assert "expected: scan and false" in str(find_user_error(caught.value))


def test_a_step_that_nothing_can_state_is_refused_by_name() -> None:
    class Noise(MapTransform):
        def __init__(self) -> None:
            super().__init__("image")
            self.generator = torch.Generator()

        def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
            return data

    text = refused(**{"train#preprocessing": Compose([Noise()])})
    assert "Noise.generator is a Generator" in text
    assert "expected: " in text


def test_an_unknown_field_of_view_is_refused() -> None:
    assert "field_of_view is 'lung'; expected: scan, lungs" in refused(field_of_view="lung")


def test_an_evaluation_on_the_networks_grid_predicts_nothing_beyond_the_field_of_view(tmp_path: Path) -> None:
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    case = {"name": "a", "image": str(tmp_path / "image.nii"), "label": str(tmp_path / "label.nii")}
    for key, array in (("image", phantom.image), ("label", phantom.infection)):
        nib.save(nib.Nifti1Image(array, phantom.affine), case[key])
    metadata = {"preprocessing": completed_preprocessing({"size": 32, "field_of_view": "lungs"})}
    settings = {"checkpoint_metadata": metadata, "metric_grid": "network", "cases": [case]}
    (item,) = decollate_batch(next(iter(DataLoader(chain("validate#dataset", "evaluate", **settings), batch_size=1))))
    item["pred"] = MetaTensor(torch.full((1, 32, 32, 40), 2.0))
    found = EvaluationOutput(Compose([]), "network")(item)["pred"]
    low, high, _ = item["box"][2].tolist()
    assert high - low < 40
    assert [z for z in range(40) if found[..., z].max() > 0] == list(range(low, high))


def test_slices_of_their_own_size_are_for_patches_only() -> None:
    assert "spatial_size is -1" in refused(spatial_size=-1)
    assert chain("checkpoint_metadata#preprocessing", "networks/fv_paspp_unet3d", spatial_size=-1)["size"] == -1


def test_a_network_that_finds_lungs_sees_the_whole_scan() -> None:
    overlays = ("networks/fv_paspp_unet3d", "lungs")
    assert chain("checkpoint_metadata#preprocessing", *overlays)["lung_only"] is False
    with pytest.raises((UserError, RuntimeError)) as caught:
        chain("switch#crop", *overlays, lung_only="true")
    assert "because the network finds the lungs itself" in str(find_user_error(caught.value))
