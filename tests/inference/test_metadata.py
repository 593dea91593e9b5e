from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scripts.errors import UserError
from scripts.inference.building import network_from_metadata, preprocessing_from_metadata, require_slices
from scripts.inference.metadata import (
    OPERATING_POINT,
    completed_preprocessing,
    metadata_path,
    read_metadata,
    write_metadata,
)
from scripts.networks.registry import create_network, same_network
from scripts.training.checkpoint import StartWeights

ARGUMENTS = {"base_width": 4, "fusion": "add"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    network = create_network("resunet", **ARGUMENTS)
    torch.save(network.state_dict(), path)
    write_metadata(path, network.spec, {"size": 32, "window": [-1250, 250], "intensity": "auto"}, {"name": "x"}, {})
    return path


def change(path: Path, **values: object) -> None:
    metadata = json.loads(metadata_path(path).read_text())
    metadata_path(path).write_text(json.dumps({**metadata, **values}))


def test_a_network_comes_back_with_its_weights(checkpoint: Path) -> None:
    network = network_from_metadata(read_metadata(checkpoint))
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    assert network.spec == {"name": "resunet", "arguments": ARGUMENTS}


def test_overrides_that_the_network_knows_are_taken(checkpoint: Path) -> None:
    network = network_from_metadata(read_metadata(checkpoint), dropout=0.5, deep_supervision=False, unheard_of=1)
    assert network.dropout.p == 0.5
    assert network.train()(torch.zeros(2, 1, 16, 16)).shape == (2, 1, 16, 16)


def test_overrides_that_the_network_does_not_know_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "unet.pt"
    network = create_network("unet", base_width=4)
    torch.save(network.state_dict(), path)
    write_metadata(path, network.spec, {}, {}, {})
    assert network_from_metadata(read_metadata(path), deep_supervision=False, dropout=0.1) is not None


def test_networks_are_the_same_if_what_one_leaves_unsaid_is_the_default() -> None:
    """Metadata of earlier versions lack arguments that came later, and JSON knows no tuples."""
    earlier = {"name": "resunet", "arguments": {"base_width": 4, "edge_stages": [1, 2]}}
    now = {"name": "resunet", "arguments": {"base_width": 4, "edge_stages": (1, 2), "upsampling": "transposed"}}
    assert same_network(earlier, now)
    assert not same_network(earlier, {"name": "resunet", "arguments": {"base_width": 4, "upsampling": "bilinear"}})
    assert not same_network(earlier, {"name": "unet", "arguments": {"base_width": 4}})
    assert not same_network(earlier, {})


def test_a_training_starts_from_weights_of_a_version_without_a_later_argument(checkpoint: Path) -> None:
    StartWeights(str(checkpoint), create_network("resunet", **ARGUMENTS, upsampling="transposed"))
    with pytest.raises(UserError, match="expected: the same"):
        StartWeights(str(checkpoint), create_network("resunet", **ARGUMENTS, upsampling="bilinear"))


def test_missing_weights_are_said_in_one_line_that_helps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pt: no such weights.*--checkpoint.*make demo") as caught:
        read_metadata(tmp_path / "none.pt")
    assert "\n" not in str(caught.value)


def test_weights_without_metadata_are_refused(checkpoint: Path) -> None:
    metadata_path(checkpoint).unlink()
    with pytest.raises(UserError, match=r"its metadata model\.json is missing"):
        read_metadata(checkpoint)


def test_exchanged_weights_are_refused(checkpoint: Path) -> None:
    torch.save(create_network("resunet", base_width=4).state_dict(), checkpoint)
    with pytest.raises(UserError, match=r"sha256 is \w{12}\.\.\., its metadata says \w{12}"):
        read_metadata(checkpoint)


def test_broken_metadata_are_refused(checkpoint: Path) -> None:
    text = metadata_path(checkpoint).read_text()
    metadata_path(checkpoint).write_text(text[:50])
    with pytest.raises(UserError, match="not readable as JSON"):
        read_metadata(checkpoint)
    metadata_path(checkpoint).write_text("[]")
    with pytest.raises(UserError, match="lacks"):
        read_metadata(checkpoint)


def test_a_metadata_cannot_ask_for_code(checkpoint: Path) -> None:
    change(checkpoint, network={"name": "os.system", "arguments": {"command": "true"}})
    with pytest.raises(UserError, match=r"network is 'os\.system'"):
        network_from_metadata(read_metadata(checkpoint))


def test_a_metadata_without_a_smallest_lesion_keeps_every_lesion(checkpoint: Path) -> None:
    change(checkpoint, operating_point={"threshold": 0.4})
    point = {**OPERATING_POINT, "threshold": 0.4}
    assert (point["smallest_lesion_mm3"], point["least_views_agree_percent"]) == (0.0, None)
    assert read_metadata(checkpoint)["operating_point"] == point


def test_a_switch_that_an_earlier_version_recorded_as_text_is_a_switch(checkpoint: Path) -> None:
    steps = {"size": 32, "window": [-1250, 250], "intensity": "auto", "z_score": "false", "lung_only": "true"}
    change(checkpoint, preprocessing=steps)
    found = read_metadata(checkpoint)["preprocessing"]
    assert (found["z_score"], found["lung_only"]) == (False, True)
    assert completed_preprocessing(steps) == completed_preprocessing({**steps, "z_score": False, "lung_only": True})
    change(checkpoint, preprocessing={**steps, "z_score": "maybe"})
    with pytest.raises(UserError, match=r"model\.json: z_score is 'maybe'; expected: true or false"):
        read_metadata(checkpoint)


SLICES = {"preprocessing": {"size": 32, "window": [-1000, 0], "intensity": "hu"}, "network": {"name": "resunet"}}
VOLUMES = {
    "preprocessing": {**SLICES["preprocessing"], "z_score": False, "lung_only": False, "patch_size": [16, 16, 4]},
    "network": {"name": "fv_paspp_unet3d"},
}


def test_preprocessing_is_what_the_metadata_states(make_scan) -> None:
    item = {"image": str(make_scan()[0])}
    z_scored, windowed = (preprocessing_from_metadata(metadata)(dict(item))["image"] for metadata in (SLICES, VOLUMES))
    torch.testing.assert_close(z_scored.mean(dim=(1, 2)).as_tensor(), torch.zeros(1, 6), atol=1e-5, rtol=0)
    assert (windowed.min(), windowed.max()) == (0, 1)
    other = preprocessing_from_metadata(VOLUMES, intensity="auto")(dict(item))["image"]
    assert torch.equal(other.as_tensor(), windowed.as_tensor())


def test_a_step_that_this_version_does_not_know_is_refused(checkpoint: Path) -> None:
    change(checkpoint, preprocessing={**SLICES["preprocessing"], "equalise": True})
    with pytest.raises(UserError, match="preprocessing has equalise; expected: size, window"):
        read_metadata(checkpoint)


def test_what_streams_slices_refuses_a_network_for_volumes() -> None:
    require_slices(SLICES, "model.pt")
    with pytest.raises(UserError, match=r"model\.pt: fv_paspp_unet3d sees volumes"):
        require_slices(VOLUMES, "model.pt")


@pytest.mark.parametrize("key", ["size", "window", "intensity", "field_of_view", "z_score"])
def test_metadata_that_a_configuration_would_evaluate_are_refused(key: str, checkpoint: Path, tmp_path: Path) -> None:
    # MONAI Label's deployment writes them into a train.yaml.
    text = f"$open({str(tmp_path / 'proof')!r}, 'w').close()"
    change(checkpoint, preprocessing={"size": 32, "window": [-1250, 250], "intensity": "auto", key: text})
    with pytest.raises(UserError, match="begins with"):
        read_metadata(checkpoint)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("free", [3, {"ml": [1.0]}, {"ml": [1.0], "percent_of_lungs": [-1.0]}, {"volumes": 1}])
def test_malformed_marks_of_scans_without_infection_are_refused(free: object, checkpoint: Path) -> None:
    path = metadata_path(checkpoint)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "calibration": {"lesion_free": free}}))
    with pytest.raises(UserError, match=r"calibration\.lesion_free is .*; expected: volumes"):
        read_metadata(checkpoint)
    stated = {"volumes": 1, "ml": [1.0], "percent_of_lungs": []}
    for known in ({"lesion_free": stated}, {"lesion_free": None}, {}):
        path.write_text(json.dumps({**content, "calibration": known}))
        assert read_metadata(checkpoint)["calibration"] == known


@pytest.mark.parametrize("key", ["network", "preprocessing", "operating_point", "data"])
@pytest.mark.parametrize("value", ["resunet", ["resunet"], None, 3])
def test_entries_that_are_no_names_and_values_are_refused(key: str, value: object, checkpoint: Path) -> None:
    change(checkpoint, **{key: value})
    with pytest.raises(UserError, match=f"{key} is .*names and values"):
        read_metadata(checkpoint)


def test_arguments_that_a_network_cannot_be_built_with_are_one_line(checkpoint: Path) -> None:
    change(checkpoint, network={"name": "resunet", "arguments": {"base_width": "wide"}})
    with pytest.raises(UserError, match=r"network resunet: .*can be built with"):
        network_from_metadata(read_metadata(checkpoint))
