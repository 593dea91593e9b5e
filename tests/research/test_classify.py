"""Classes of a scan against the pipeline that evaluates them, by hand, and as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image

from scripts.commands.classify import classify
from scripts.errors import UserError, find_user_error
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.inferer import ScanInferer
from scripts.inference.metadata import write_checkpoint
from scripts.inference.segmenter import Segmentation, Segmenter
from scripts.io.dicom.reading import read_dicom
from scripts.io.reading import read_scan
from scripts.networks.registry import create_network
from scripts.research.classify import Classifier, classify_file, measure_classes
from scripts.research.pseudo_labels import SCALE, write_pseudo_labels
from scripts.transforms.items import PRED
from scripts.transforms.postprocessing import ClassMaps, ScanProbabilities
from tests.chains import CONFIGS, chain
from tests.scan_fixtures import validate

MakeScan = Callable[..., tuple[Path, Path]]
OBLIQUE = np.array([[0.0, 0.7, 0.1, 5.0], [0.8, 0.0, 0.0, -7.0], [0.0, 0.1, 4.0, 9.0], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def class_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = create_network("mc_unet", base_width=4)
    with torch.no_grad():  # as initialised, one class wins everywhere
        maps = network.eval()(torch.cat([torch.randn(8, 1, 32, 32), torch.rand(8, 1, 32, 32)], dim=1))
        network.out.bias -= maps.median(0).values.median(1).values.median(1).values
    path = tmp_path_factory.mktemp("classes") / "classes.pt"
    preprocessing = {"size": 32, "window": [-1250, 250], "intensity": "auto", "prior": "truth"}
    data = {"name": "small", "synthetic": False}
    write_checkpoint(
        path, network.state_dict(), network=network.spec, preprocessing=preprocessing, data=data, figures={}
    )
    return path


@pytest.fixture(scope="module")
def models(weights: Path, class_weights: Path) -> tuple[Segmenter, Classifier]:
    return Segmenter(weights, "cpu"), Classifier(class_weights, "cpu")


@pytest.mark.parametrize("where", ["inference", "evaluation", "pseudo labels"])
def test_weights_of_classes_are_refused_where_infection_is_looked_for(
    where: str, class_weights: Path, make_scan: MakeScan, tmp_path: Path
) -> None:
    inference = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.yaml"))
    inference["checkpoint"] = str(class_weights)
    case = {"name": "a", "image": str(make_scan()[0])}
    apply = {
        "inference": lambda: inference.get_parsed_content("network_def"),
        "evaluation": lambda: chain("network_def", "evaluate", checkpoint=str(class_weights)),
        "pseudo labels": lambda: write_pseudo_labels(class_weights, [case], tmp_path, torch.device("cpu")),
    }
    with pytest.raises((UserError, RuntimeError)) as caught:
        apply[where]()
    assert "tells ground glass from consolidation" in str(find_user_error(caught.value))


def test_classes_are_those_of_the_evaluation_within_the_mask(
    models: tuple[Segmenter, Classifier], weights: Path, make_scan: MakeScan, tmp_path: Path
) -> None:
    segmenter, classifier = models
    image, _ = make_scan(affine=OBLIQUE)
    scan = read_scan(image)
    slices = HounsfieldSlices(scan)
    infection = segmenter.segment(scan, slices, probability=True)
    infection.mask[:, : scan.values.shape[1] // 2] = 0
    found = classifier.classify(scan, slices, infection)
    assert set(np.unique(found)) == {0, 1, 2}
    assert not found[infection.mask == 0].any()

    case = {"name": "scan", "image": str(image), "patient": None, "fold": None}
    (prior,) = write_pseudo_labels(weights, [case], tmp_path, torch.device("cpu"))
    metadata = {"checkpoint_metadata": classifier.metadata, "metric_grid": "network"}
    steps = chain("preprocessing", "evaluate", "evaluate_multiclass", **metadata)
    item = steps({**case, "prior": str(prior), "prior_scale": SCALE})
    assert item["image"].shape == (2, 32, 32, 6)
    with torch.inference_mode():
        logits = ScanInferer(classifier.metadata)(item["image"][None].as_tensor(), classifier.predictor.network)
    item[PRED] = MetaTensor(logits[0], meta=dict(item["image"].meta))
    maps = ClassMaps(ScanProbabilities(steps))(item)[PRED].numpy()
    np.testing.assert_array_equal(maps.sum(0), 1)
    np.testing.assert_array_equal(found, maps.argmax(0) * infection.mask)


def test_measures_by_hand() -> None:
    mask = np.zeros((4, 4, 2), np.uint8)
    mask[:2, :, 0] = 1  # 8 voxels
    classes = np.zeros_like(mask)
    classes[0, :, 0] = 1
    classes[1, 0, 0] = 2
    assert measure_classes(classes, mask, 0.5) == {
        "infection": {"voxels": 8, "ml": 4.0},
        "ground_glass": {"voxels": 4, "ml": 2.0, "percent_of_infection": 50.0},
        "consolidation": {"voxels": 1, "ml": 0.5, "percent_of_infection": 12.5},
        "unclassified": {"voxels": 3, "ml": 1.5, "percent_of_infection": 37.5},
    }
    nothing = measure_classes(np.zeros_like(mask), np.zeros_like(mask), None)
    assert nothing["consolidation"] == {"voxels": 0, "percent_of_infection": None}


def test_files(models: tuple[Segmenter, Classifier], make_scan: MakeScan, tmp_path: Path) -> None:
    image, _ = make_scan(affine=OBLIQUE)
    out = tmp_path / "out"
    report = classify_file(image, out, *models)
    assert sorted(path.name for path in out.iterdir()) == ["classes.json", "classes.nii.gz"]
    written, source = nib.load(out / "classes.nii.gz"), nib.load(image)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.affine, source.affine)
    for field in ("sform_code", "qform_code", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(written.header[field], source.header[field])
    values = np.asarray(written.dataobj)
    assert values.shape == source.shape
    assert json.loads((out / "classes.json").read_text()) == report
    voxel_ml = abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
    for number, name in ((1, "ground_glass"), (2, "consolidation")):
        count = np.count_nonzero(values == number)
        assert report["measures"][name]["voxels"] == count
        assert report["measures"][name]["ml"] == pytest.approx(count * voxel_ml, rel=1e-5)
    assert report["demonstration"].startswith("DEMONSTRATION WEIGHTS")  # those of the infection alone are

    with pytest.raises(UserError, match="out: exists"):
        classify_file(image, out, *models)
    (out / "classes.json").unlink()
    with pytest.raises(UserError, match="out: exists"):  # nothing tells that classes.nii.gz is ours
        classify_file(image, out, *models, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["classes.nii.gz"]


def test_a_given_mask_in_place_of_weights(
    models: tuple[Segmenter, Classifier], make_scan: MakeScan, turned, tmp_path: Path
) -> None:
    """Stored in another order of axes; the classes are those of a probability of 1 there."""
    image, label = make_scan(affine=OBLIQUE)
    nib.save(turned(nib.load(label), "SRA"), tmp_path / "mask.nii.gz")
    report = classify_file(image, tmp_path / "out", tmp_path / "mask.nii.gz", models[1])
    scan = read_scan(image)
    mask = np.asarray(nib.load(label).dataobj)
    expected = models[1].classify(scan, HounsfieldSlices(scan), Segmentation(mask, mask * np.uint8(255), []))
    assert expected.any()
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "classes.nii.gz").dataobj), expected)
    assert report["measures"]["infection"]["voxels"] == mask.sum()
    assert report["demonstration"] is None
    other, _ = make_scan("other", shape=(40, 36, 7))
    with pytest.raises(UserError, match=r"mask\.nii\.gz: has 36 x 40 x 6 voxels"):
        classify_file(other, tmp_path / "new", tmp_path / "mask.nii.gz", models[1])
    assert not (tmp_path / "new").exists()


def test_infection_comes_from_weights_or_from_a_mask(class_weights: Path, weights: Path, tmp_path: Path) -> None:
    mask = Path("m.nii.gz")
    for wrong in ({"weights": weights, "mask": mask}, {"mask": mask, "threshold": 0.3}):
        with pytest.raises(UserError, match="expected: --weights"):
            classify(Path("scan.nii.gz"), tmp_path / "out", class_weights=class_weights, device="cpu", **wrong)


def test_the_shipped_weights_are_used_unless_others_are_named(
    class_weights: Path, weights: Path, make_scan: MakeScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.inference.shipped.MODELS", weights.parent)  # model.pt
    monkeypatch.setattr("scripts.inference.shipped.CLASS_WEIGHTS", class_weights)
    scan, _ = make_scan("scan", shape=(40, 36, 7))
    classify(scan, tmp_path / "given", class_weights=class_weights, weights=weights, device="cpu")
    classify(scan, tmp_path / "shipped", device="cpu")
    given, shipped = ((tmp_path / name / "classes.nii.gz").read_bytes() for name in ("given", "shipped"))
    assert given == shipped
    used = json.loads((tmp_path / "shipped" / "classes.json").read_text())["model"]
    assert used["classes"]["weights_sha256"] == json.loads(class_weights.with_suffix(".json").read_text())["sha256"]


def test_dicom_becomes_nifti(
    models: tuple[Segmenter, Classifier], write_series: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    stored = write_series(tmp_path / "series")
    classify_file(tmp_path / "series", tmp_path / "out", *models)
    values = np.asarray(nib.load(tmp_path / "out" / "classes.nii.gz").dataobj)
    assert values.shape == stored.T.shape
    seg = hd.seg.segread(tmp_path / "out" / "classes_seg.dcm")
    validate(tmp_path / "out" / "classes_seg.dcm")
    labels = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [(one.segment_label, one.segmented_property_type.value) for one in labels] == [
        ("ground glass opacity, AI", "112120"),
        ("consolidation, AI", "95436008"),
    ]
    sources = [one.SOPInstanceUID for one in read_dicom(tmp_path / "series").headers]
    frames = seg.get_pixels_by_source_instance(
        sources, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for number in (1, 2):
        assert (values == number).any()
        np.testing.assert_array_equal(frames[..., number - 1].T, values == number)


def test_a_picture_becomes_a_palette_picture_without_ml(models: tuple[Segmenter, Classifier], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    report = classify_file(tmp_path / "slice.png", tmp_path / "out", *models)
    with Image.open(tmp_path / "out" / "classes.png") as picture:
        assert (picture.mode, picture.size) == ("P", (40, 48))
        indices, grey = np.asarray(picture), np.asarray(picture.convert("L"))
    assert set(np.unique(indices)) == {0, 1, 2}
    assert dict(zip(indices.ravel().tolist(), grey.ravel().tolist(), strict=True)) == {0: 0, 1: 38, 2: 75}
    assert report["measures"]["ground_glass"]["voxels"] == np.count_nonzero(indices == 1)
    assert "ml" not in report["measures"]["ground_glass"]


def test_values_are_read_as_the_weights_state_that_find_the_infection(
    models: tuple[Segmenter, Classifier], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)).save(tmp_path / "slice.png")
    stated = Segmenter(make_checkpoint(tmp_path / "model.pt", steps={"intensity": "window:-1350,150"}), "cpu")
    report = classify_file(tmp_path / "slice.png", tmp_path / "out", stated, models[1])
    assert report["settings"]["intensity"] == "window:-1350,150"


def test_weights_in_each_others_place_are_refused(weights: Path, class_weights: Path) -> None:
    with pytest.raises(
        UserError, match=r"classes\.pt: tells ground glass .* expected here: weights that find infection"
    ):
        Segmenter(class_weights, "cpu")
    with pytest.raises(UserError, match=r"model\.pt: the metadata's resunet sees no infection map"):
        Classifier(weights, "cpu")


def test_several_scans_are_refused(models: tuple[Segmenter, Classifier], make_scan: MakeScan, tmp_path: Path) -> None:
    make_scan("a"), make_scan("b")
    with pytest.raises(UserError, match="scans: 2 scans"):
        classify_file(tmp_path / "scans", tmp_path / "out", *models)
    assert not (tmp_path / "out").exists()
