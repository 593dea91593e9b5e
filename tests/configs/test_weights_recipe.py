"""The recipe for scans of other hospitals: configs/presets/weights.yaml."""

from __future__ import annotations

import torch

from scripts.data.slices import transformed
from scripts.training.preprocessing_spec import preprocessing_spec
from scripts.transforms.items import UNKNOWN
from tests.chains import chain, network_grid, training_input

STEPS = ("thick", "part", "sharpen", "smooth", "zoom_out", "noise")


def item() -> dict[str, torch.Tensor]:
    """A slice of lung with soft tissue and a lesion whose rim is disputed."""
    image = torch.full((1, 64, 64), -800.0)
    image[:, 24:40, 24:40] = 0.0
    label = torch.zeros(1, 64, 64)
    label[:, 26:38, 26:38], label[:, 28:36, 28:36] = UNKNOWN, 1.0
    return {"image": image, "label": label, "slab": torch.cat([image - 400, image, image + 200])}


def served(seed: int, **probability: float) -> dict[str, torch.Tensor]:
    wanted = {**dict.fromkeys(STEPS, 0.0), **probability}
    return transformed(item(), training_input("presets/weights", spatial_size=64, augment_probability=wanted), seed)


def test_every_step_changes_the_image_and_none_the_values_of_the_label() -> None:
    plain = [served(seed) for seed in range(4)]
    for step in STEPS:
        changed = [served(seed, **{step: 1.0}) for seed in range(4)]
        assert any(
            not torch.equal(*pair)
            for pair in zip(*([one["image"] for one in two] for two in (plain, changed)), strict=True)
        )
        for one in changed:
            assert set(one) == {"image", "label"}
            assert one["image"].shape == (1, 64, 64)
            assert abs(float(one["image"].mean())) < 1e-4
            assert {*one["label"][0].unique().tolist()} <= {UNKNOWN, 0.0, 1.0}


def test_a_body_that_is_shown_small_lies_in_air() -> None:
    for seed in range(6):
        image, label = (served(seed, zoom_out=1.0)[key] for key in ("image", "label"))
        assert image[0, 0].unique().numel() == 1
        assert image[0, 0, 0] == image.min()
        assert not label[:, 0].any()


def test_metadata_can_state_its_preprocessing() -> None:
    chains = [network_grid(64, field_of_view="lungs"), training_input("presets/weights", spatial_size=64)]
    stated = {"size": 64, "window": [-1250, 250], "intensity": "auto", "field_of_view": "lungs", "lung_only": False}
    assert preprocessing_spec({"train#preprocessing": chains}, **stated)["size"] == 64


def test_one_weight_of_the_mix_can_be_set() -> None:
    mix = chain("given#slice_mix", "presets/weights", **{"slice_mix#lesion_free": 0.5})
    assert (mix["lesion_free"], mix["infected"]) == (0.5, 0.4)
