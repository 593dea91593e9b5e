from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

from scripts.errors import UserError
from scripts.inference.backends.choice import TORCH
from scripts.inference.building import (
    network_from_metadata,
    preprocessing_from_metadata,
    require_slices,
    trained_network,
)
from scripts.inference.calibration_run import CalibrationRun
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
    with pytest.raises(UserError, match=r"the content is \[\]; expected: names and values"):
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
    with pytest.raises(UserError, match=r"model\.json: preprocessing\.z_score is 'maybe'; expected: true or false"):
        read_metadata(checkpoint)


def test_what_is_null_is_as_if_it_were_left_out(checkpoint: Path) -> None:
    stated = read_metadata(checkpoint)["preprocessing"]
    change(checkpoint, preprocessing={**stated, "patch_size": None, "prior": None}, training=None)
    metadata = read_metadata(checkpoint)
    assert metadata["preprocessing"] == stated
    require_slices(metadata, checkpoint)
    run = CalibrationRun(checkpoint, "data", False, 1, torch.device("cpu"), 64, TORCH, 0.0)
    assert (run.metadata["training"], run.metadata["preprocessing"]["size"]) == ({"size": 32}, 64)


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
    with pytest.raises(UserError, match=r"preprocessing\.equalise is not known; expected: size, window"):
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
    with pytest.raises(UserError, match=rf"preprocessing\.{key} is "):
        read_metadata(checkpoint)
    assert not (tmp_path / "proof").exists()


def test_known_forms_of_what_is_marked_without_infection_are_read(checkpoint: Path) -> None:
    stated = {"volumes": 1, "ml": [1.0], "percent_of_lungs": []}
    for known in ({"lesion_free": stated}, {"lesion_free": None}, {}, {"views": {"n": 3}}):
        change(checkpoint, calibration=known)
        assert read_metadata(checkpoint)["calibration"] == known


BIN = {"probability": 0.5, "observed": 0.4, "voxels": 9}
FAMILIARITY = {"layer": "encoder", "mean": [0.0, 1.0], "sd": [1.0, 2.0], "limit": 3.0}
LAYERS = [{"name": "a", "channels": 1}, {"name": "b", "channels": 1}]
SEVERAL = {**FAMILIARITY, "layer": None, "layers": LAYERS, "centres": [[0.0, 1.0]]}


@pytest.mark.parametrize(
    ("entry", "value", "found"),
    [
        ("format", 2, r"format is 2; expected: 1"),
        ("sha256", "ab", r"sha256 is 'ab'; expected:"),
        ("colour", 1, r"colour is not known; expected: format, sha256, network"),
        ("network", {"arguments": {}}, r"network\.name is missing"),
        ("network", {"name": "resunet", "version": 1}, r"network\.version is not known; expected: name, arguments"),
        ("network", {"name": "resunet", "arguments": {"base_width": 10**9}}, r"arguments is .*numbers up to 65536"),
        ("network", {"name": "resunet", "arguments": {"mask_stages": [1] * 101}}, r"lists of at most 100 values"),
        ("network", {"name": "resunet", "arguments": {"gate": "@x"}}, r"no text that begins with"),
        ("preprocessing", {"size": 100_000}, r"preprocessing\.size is 100000; expected: less than or equal to 4096"),
        (
            "preprocessing",
            {"size": -2},
            r"preprocessing\.size is -2; expected: 4 or more, or -1 for slices of their own",
        ),
        ("preprocessing", {"size": -1}, r"expected: size -1, slices of their own size, with patch_size"),
        ("targets", ["lungs"], r"targets is \['lungs'\]; expected: \['infection', 'lungs'\], or null"),
        ("preprocessing", {"size": 32.5}, r"preprocessing\.size is 32\.5; expected: a valid integer"),
        ("preprocessing", {"window": [250, -1250]}, r"window is \[250, -1250\]; expected: \[LO, HI\] with LO < HI"),
        ("preprocessing", {"window": [0]}, r"preprocessing\.window is \[0\]"),
        ("preprocessing", {"intensity": "window:9,1"}, r"preprocessing\.intensity is 'window:9,1'; expected: auto, hu"),
        ("preprocessing", {"field_of_view": "head"}, r"field_of_view is 'head'; expected: scan, lungs"),
        ("preprocessing", {"patch_size": [8, 8]}, r"preprocessing\.patch_size is \[8, 8\]"),
        ("operating_point", {"threshold": 1.0}, r"operating_point\.threshold is 1\.0; expected: less than 1"),
        ("operating_point", {"threshold": "0.5"}, r"threshold is '0\.5'; expected: a valid number"),
        ("operating_point", {"test_time_flips": 3}, r"test_time_flips is 3; expected: true or false, or 1, 2 or 4"),
        ("operating_point", {"smallest_lesion_mm3": -1.0}, r"smallest_lesion_mm3 is -1\.0"),
        ("operating_point", {"least_views_agree_percent": 101.0}, r"least_views_agree_percent is 101\.0"),
        ("familiarity", {**FAMILIARITY, "sd": [1.0]}, r"familiarity is .*as many sd as mean values, which are 2"),
        (
            "familiarity",
            {**FAMILIARITY, "layers": LAYERS},
            r"expected: layers and centres, or the layer of",
        ),
        ("familiarity", {**SEVERAL, "centres": None}, r"expected: layers and centres, or the layer of"),
        ("familiarity", {**SEVERAL, "layers": LAYERS[:1]}, r"layers with as many channels as mean values, which are 2"),
        (
            "familiarity",
            {**SEVERAL, "layers": [{"name": "a", "channels": 0}]},
            r"familiarity\.layers\.0\.channels is 0; expected: greater",
        ),
        ("familiarity", {**SEVERAL, "centres": [[0.0]]}, r"centres of as many values as the mean, which are 2"),
        ("familiarity", {**SEVERAL, "centres": []}, r"familiarity\.centres is \[\]"),
        ("familiarity", {**FAMILIARITY, "sd": [1.0, 0.0]}, r"familiarity\.sd\.1 is 0\.0; expected: greater than 0"),
        ("calibration", {"lesion_free": 3}, r"calibration\.lesion_free is 3; expected: names and values"),
        ("calibration", {"lesion_free": {"volumes": 1, "ml": []}}, r"lesion_free\.percent_of_lungs is missing"),
        ("calibration", {"lesion_free": {"volumes": 1, "ml": [-1.0], "percent_of_lungs": []}}, r"ml\.0 is -1\.0"),
        ("calibration", {"curve": []}, r"calibration\.curve is \[\]"),
        ("calibration", {"curve": [{**BIN, "observed": 1.5}]}, r"curve\.0\.observed is 1\.5; expected: less than or"),
        ("calibration", {"curve": [BIN, BIN]}, r"calibration is .*expected: a curve whose probabilities rise"),
        ("parent", {"sha256": "0" * 64, "data": {}, "datasets": "x", "terms": ""}, r"parent\.datasets is 'x'"),
    ],
)
def test_entries_out_of_bounds_are_refused_by_name(entry: str, value: object, found: str, checkpoint: Path) -> None:
    change(checkpoint, **{entry: value})
    with pytest.raises(UserError, match=rf"model\.json: .*{found}"):
        read_metadata(checkpoint)


def test_one_error_lists_every_problem(checkpoint: Path) -> None:
    change(checkpoint, preprocessing={"size": 0, "window": [1, 0]}, operating_point={"threshold": 2.0}, more=None)
    with pytest.raises(UserError) as caught:
        read_metadata(checkpoint)
    headline, *problems = str(caught.value).split("\n  ")
    assert headline.endswith("model.json: 4 problems:")
    assert [line.split(" is ")[0] for line in problems] == [
        "preprocessing.size",
        "preprocessing.window",
        "operating_point.threshold",
        "more",
    ]


def test_weights_of_a_narrower_network_are_refused_before_the_network_is_built(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda weight, *_, **__: built.append(weight.device.type))
    change(checkpoint, network={"name": "resunet", "arguments": {**ARGUMENTS, "base_width": 1024}})
    with pytest.raises(UserError, match=r"no plain state dict of the metadata's network"):
        trained_network(checkpoint, torch.device("cpu"))
    assert set(built) <= {"meta"}


def test_loading_weights_loads_no_compiler(checkpoint: Path) -> None:
    """It takes seconds; values that are drawn on the meta device would do it."""
    code = (
        "import sys, torch; from scripts.inference.building import trained_network; "
        "trained_network(sys.argv[1], torch.device('cpu')); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, checkpoint], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("weights", ["model", "full", "classes"])
def test_shipped_metadata_follow_the_published_schema(weights: str) -> None:
    bundle = Path(__file__).resolve().parents[2]
    content = json.loads((bundle / "models" / f"{weights}.json").read_text())
    jsonschema.validate(content, json.loads((bundle / "docs/schemas/checkpoint_metadata.json").read_text()))


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
