"""The gates of the model zoo: metadata, network in and out, exports,
properties of the workflows."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from tests.bundle_runner import NARROW, unchanged_process

MakeDataset = Callable[..., Path]


@pytest.fixture
def bundle(bundle_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Calls a command of `python -m monai.bundle` and returns what it logged."""
    monkeypatch.chdir(bundle_root)
    monkeypatch.setattr(logging.getLogger("monai.bundle.scripts"), "propagate", True)  # caplog listens at the root

    def call(command: str, **options: object) -> str:
        with unchanged_process():
            getattr(monai.bundle, command)(**options)
        return caplog.text

    return call


def test_metadata_is_valid_by_the_newest_schema(bundle) -> None:
    schema = "tests/configs/meta_schema_20240725.json"
    printed = bundle("verify_metadata", meta_file="configs/metadata.json", filepath=schema)
    assert "metadata is verified with no error" in printed


def test_the_schema_can_refuse(bundle_root: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((bundle_root / "tests/configs/meta_schema_20240725.json").read_text())
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    del metadata["network_data_format"]["inputs"]["image"]["dtype"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, schema)


def test_the_version_is_in_the_changelog(bundle_root: Path) -> None:
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    pins = (bundle_root / "constraints.txt").read_text()
    assert f"monai=={metadata['monai_version']}\n" in pins
    assert f"torch=={metadata['pytorch_version']}\n" in pins
    assert f"numpy=={metadata['numpy_version']}\n" in pins
    for name, version in metadata["required_packages_version"].items():
        assert re.search(rf"^{name}=={re.escape(version)}$", pins, re.MULTILINE | re.IGNORECASE), name


def test_the_papers_network_takes_and_gives_what_the_metadata_say(bundle) -> None:
    printed = bundle(
        "verify_net_in_out",
        net_id="network_def",
        config_file="configs/train.yaml",
        device="cpu",
        meta_file="configs/metadata.json",
    )
    assert "data shape of network is verified with no error" in printed


def test_a_trained_checkpoint_verifies_and_exports(bundle, trained: Path, tmp_path: Path) -> None:
    common = {
        "net_id": "network_def",
        "config_file": "configs/inference.yaml",
        "meta_file": "configs/metadata.json",
        "checkpoint": str(trained),
    }
    bundle("verify_net_in_out", device="cpu", **common)
    script, onnx = tmp_path / "model.ts", tmp_path / "model.onnx"
    bundle("ckpt_export", filepath=str(script), ckpt_file=str(trained), **common)
    bundle("onnx_export", filepath=str(onnx), ckpt_file=str(trained), input_shape=[2, 1, 64, 64], **common)

    parser = ConfigParser()
    parser.read_config("configs/inference.yaml")
    parser["checkpoint"] = str(trained)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(trained, weights_only=True))
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images).numpy()
        scripted = torch.jit.load(str(script)).eval()(images).numpy()
    np.testing.assert_allclose(scripted, expected, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def workflow(config: str | list[str], kind: str, **settings: object) -> ConfigWorkflow:
    return ConfigWorkflow(
        config_file=config,
        meta_file="configs/metadata.json",
        logging_file="configs/logging.conf",
        workflow_type=kind,
        **settings,
    )


def test_the_training_workflow_has_the_properties(make_dataset: MakeDataset, tmp_path: Path) -> None:
    flow = workflow("configs/train.yaml", "train", dataset_dir=str(make_dataset()), output_dir=str(tmp_path), **NARROW)
    flow.initialize()
    assert flow.check_properties() == []
    assert len(flow.train_dataset_data) == 2
    assert flow.max_epochs == 2
    assert flow.evaluator is not None


def test_the_inference_workflow_has_the_properties(trained: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(tmp_path / "dataset"), "checkpoint": str(trained), "device": "cpu"}
    flow = workflow("configs/inference.yaml", "infer", **settings)
    flow.initialize()
    assert flow.check_properties() == []
    assert flow.network_def is not None
    assert len(flow.dataset_data) == 4


@pytest.mark.parametrize("path", sorted(str(p) for p in Path("configs").rglob("*.yaml")))
def test_configs_name_only_this_bundle_and_its_packages(path: str, bundle_root: Path) -> None:
    text = (bundle_root / path).read_text()
    targets = re.findall(r"_target_: (\S+)", text)
    allowed = ("scripts.", "monai.", "torch.", "ignite.")
    foreign = [target for target in targets if "." in target and not target.startswith(allowed)]
    assert foreign == []
    assert "$import" not in text  # imports of scripts fail before the runner knows the bundle's folder
