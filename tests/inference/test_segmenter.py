from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.tissue import segment_tissue
from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError
from scripts.inference.building import preprocessing_from_metadata, trained_network
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.inferer import ScanInferer
from scripts.inference.metadata import read_metadata, write_checkpoint, write_metadata
from scripts.inference.ood import OODScore, deep_layers
from scripts.inference.predictor import Predictor, slices_in_view
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.io.volume import Scan, canonical
from tests.bundle_runner import run_inference

MakeScan = Callable[..., tuple[Path, Path]]
Turned = Callable[[nib.Nifti1Image, str], nib.Nifti1Image]


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Segmenter:
    return Segmenter(weights, device="cpu")


def segment(segmenter: Segmenter, path: Path, threshold: float | None = None) -> tuple[Scan, np.ndarray, float]:
    """The scan, its mask, and the threshold: unless given,
    what about half of the voxels reach that the network saw."""
    scan = read_scan(path)
    slices = HounsfieldSlices(scan)
    kept = segmenter.threshold
    if threshold is None:
        maps = segmenter.segment(scan, slices, probability=True).probability
        assert maps is not None
        threshold = float(np.median(maps[maps > 0])) / 255
    segmenter.threshold = threshold
    mask = segmenter.segment(scan, slices).mask
    segmenter.threshold = kept
    assert 0 < mask.mean() < 1
    return scan, mask, threshold


@pytest.mark.parametrize(("through_plane_mm", "tilt"), [(0.0, 0.0), (6.0, 0.0), (6.0, 2.0)])
def test_the_mask_is_that_of_run_inference(
    through_plane_mm: float, tilt: float, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Stored with a slope, oblique, with test-time augmentation; each slice alone, or the mean over
    neighbours of other batches too, with a gantry tilt that shifts the slices by 2 mm."""
    weights = make_checkpoint(tmp_path / "model.pt", operating_point={"through_plane_mm": through_plane_mm})
    rng = np.random.default_rng(3)
    values = rng.normal(-600, 300, (90, 70, 19)).clip(-1500, 1000)  # two batches of 8 and one of 3
    turn = Rotation.from_euler("xyz", [20, -9, 14], degrees=True).as_matrix()
    axes = turn @ np.diag([-0.7, -0.7, -5.0])
    axes[:, 2] += tilt * turn[:, 1]
    affine = nib.affines.from_matvec(axes, [9.0, 11.0, -20.0])
    image = nib.Nifti1Image(values.astype(np.int16), affine)
    image.header.set_slope_inter(0.37, -12.5)
    image = nib.Nifti1Image(image.dataobj, affine, image.header)
    nib.save(image, tmp_path / "scan.nii.gz")
    _, found, threshold = segment(Segmenter(weights, device="cpu", test_time_flips=True), tmp_path / "scan.nii.gz")
    settings = {"threshold": threshold, "test_time_flips": True}
    mask = run_inference(tmp_path / "scan.nii.gz", weights, tmp_path / "out", **settings)
    expected = np.asarray(nib.load(mask).dataobj)
    np.testing.assert_array_equal(found, expected)


def test_around_the_lungs_the_mask_is_that_of_run_inference(
    make_checkpoint: Callable[..., Path], turned: Turned, tmp_path: Path
) -> None:
    phantom = make_phantom(2, shape=(128, 128, 56), spacing=(2.75, 2.75, 5.0))
    nib.save(turned(nib.Nifti1Image(phantom.image, phantom.affine), "ASR"), tmp_path / "scan.nii.gz")
    steps, point = {"field_of_view": "lungs", "z_score": False}, {"through_plane_mm": 6.0}
    weights = make_checkpoint(tmp_path / "model.pt", steps=steps, operating_point=point)
    segmenter = Segmenter(weights, device="cpu")
    scan, found, threshold = segment(segmenter, tmp_path / "scan.nii.gz")
    mask = run_inference(tmp_path / "scan.nii.gz", weights, tmp_path / "out", threshold=threshold)
    expected = np.asarray(nib.load(mask).dataobj)
    np.testing.assert_array_equal(found, expected)
    keeping = Segmenter(weights, device="cpu", threshold=threshold, keep_outside=True)
    kept = keeping.segment(scan, HounsfieldSlices(scan))
    mask = run_inference(tmp_path / "scan.nii.gz", weights, tmp_path / "kept", threshold=threshold, keep_outside=True)
    np.testing.assert_array_equal(kept.mask, np.asarray(nib.load(mask).dataobj))
    assert (kept.mask >= found).all()
    lungs = np.argwhere(phantom.lungs > 0)
    low, high = lungs.min(axis=0), lungs.max(axis=0) + 1
    marked = np.argwhere(canonical(found, scan.affine))
    margin = np.ceil(10 / np.array([2.75, 2.75, 5.0])) + 2  # a block of the coarse grid
    assert (marked.min(axis=0) >= low - margin).all()
    assert (marked.max(axis=0) < high + margin)[:2].all()  # upwards some of the trachea is taken for lung
    segmenter.threshold = threshold
    slices = HounsfieldSlices(scan)
    seen = segment_tissue(slices.rounded(), scan.spacing_lps)
    known = segmenter.segment(scan, slices, anatomy=(seen, segment_lungs(seen)))
    np.testing.assert_array_equal(known.mask, found)
    assert known.removed.outside_body > 0
    assert known.removed.outside_body + known.removed.outside_lungs == kept.mask.sum() - found.sum()


def test_weights_that_see_the_lungs_only_see_in_segment_what_they_see_in_run_inference(
    make_checkpoint: Callable[..., Path], turned: Turned, tmp_path: Path
) -> None:
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    nib.save(turned(nib.Nifti1Image(phantom.image, phantom.affine), "ASR"), tmp_path / "scan.nii.gz")
    steps = {"field_of_view": "lungs", "lung_only": True, "z_score": False}
    weights = make_checkpoint(tmp_path / "model.pt", steps=steps)
    scan, found, threshold = segment(Segmenter(weights, device="cpu"), tmp_path / "scan.nii.gz")
    mask = run_inference(tmp_path / "scan.nii.gz", weights, tmp_path / "out", threshold=threshold)
    np.testing.assert_array_equal(found, np.asarray(nib.load(mask).dataobj))
    slices, lungs = HounsfieldSlices(scan), (phantom.lungs > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(lungs, phantom.affine), tmp_path / "lungs.nii.gz")
    image, lung = {"image": str(tmp_path / "scan.nii.gz")}, {"lung": str(tmp_path / "lungs.nii.gz")}
    for given, view in ((False, "lungs"), (False, "scan"), (True, "scan")):
        weights = make_checkpoint(tmp_path / "model.pt", steps={**steps, "field_of_view": view})
        segmenter = Segmenter(weights, device="cpu")
        preprocessing = preprocessing_from_metadata(segmenter.metadata, label_grid="network" if given else "none")
        expected = preprocessing(image | lung if given else image)["image"][0]
        seen, own = segmenter.find_anatomy(scan, slices), Lungs.from_mask(lungs, scan.spacing_lps)
        anatomy = (seen[0], own) if given else seen
        box, inside = segmenter.visible_box(scan, slices, anatomy), segmenter.visible_lungs(anatomy)
        inputs = torch.stack([segmenter.network_slice(slices, z, box, inside) for z in range(40)], dim=-1)
        assert torch.equal(inputs, expected.as_tensor())
        assert 0.2 < (inputs == 0).float().mean() < 1


def test_weights_that_see_the_lungs_only_see_all_where_there_are_none(
    weights: Path, make_checkpoint: Callable[..., Path], make_scan: MakeScan, tmp_path: Path
) -> None:
    scan = read_scan(make_scan()[0])
    slices, stated = HounsfieldSlices(scan), make_checkpoint(tmp_path / "model.pt", steps={"lung_only": True})
    for scan.kind, scan.voxel_size_known in (("nifti", True), ("nifti", False), ("picture", False)):
        plain, done = (Segmenter(one, device="cpu").segment(scan, slices, True) for one in (weights, stated))
        np.testing.assert_array_equal(done.probability, plain.probability)
        assert [note.code for note in done.notes] == ["whole_scan"]


def test_every_orientation_gives_the_same_mask(
    axes: str, segmenter: Segmenter, make_scan: MakeScan, turned: Turned, tmp_path: Path
) -> None:
    plain = nib.load(make_scan(affine=np.diag([-0.7, -0.7, 8.0, 1.0]))[0])
    _, expected, threshold = segment(segmenter, Path(plain.get_filename()))
    nib.save(turned(plain, axes), tmp_path / "turned.nii")
    scan, mask, _ = segment(segmenter, tmp_path / "turned.nii", threshold)
    assert mask.shape == scan.values.shape
    np.testing.assert_array_equal(canonical(mask, scan.affine), expected)


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 31, 2), (100, 17, 3), (1024, 1024, 1), (512, 400, 5)])
def test_any_size_is_segmented(shape: tuple[int, int, int], segmenter: Segmenter, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(-600, 300, shape).clip(-1024, 1000).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-0.7, -0.7, 8.0, 1.0])), tmp_path / "scan.nii")
    _, mask, _ = segment(segmenter, tmp_path / "scan.nii")
    assert mask.shape == shape
    assert mask.dtype == np.uint8


def test_a_voxel_size_that_cannot_be_one_is_no_matter(segmenter: Segmenter, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(-600, 300, (40, 40, 3)).clip(-1024, 1000).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-0.0007, -0.0007, 0.0004, 1.0])), tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert not scan.voxel_size_known
    assert segmenter.segment(scan, HounsfieldSlices(scan)).mask.shape == (40, 40, 3)


def test_a_probability_is_kept_in_a_byte_and_agrees_with_the_mask(segmenter: Segmenter, make_scan: MakeScan) -> None:
    scan = read_scan(make_scan()[0])
    done = segmenter.segment(scan, HounsfieldSlices(scan), probability=True)
    assert done.probability is not None
    assert done.probability.dtype == np.uint8
    sure = np.abs(done.probability.astype(float) / 255 - 0.5) > 0.5 / 255
    np.testing.assert_array_equal(done.mask[sure] > 0, (done.probability >= 128)[sure])


def test_progress_counts_every_slice_once(segmenter: Segmenter, make_scan: MakeScan) -> None:
    scan, counted = read_scan(make_scan(shape=(40, 36, 19))[0]), []
    segmenter.segment(scan, HounsfieldSlices(scan), progress=counted.append)
    assert counted == [8, 8, 3]


def test_a_scan_out_of_distribution_is_told(weights: Path, make_scan: MakeScan, tmp_path: Path) -> None:
    known = Segmenter(weights, device="cpu")
    layers = deep_layers(known.predictor.network, known.slice_input.size)
    learning = Predictor(known.predictor.network, known.metadata, known.device, layers=tuple(layers))
    scan = read_scan(make_scan(shape=(40, 36, 19))[0])
    slices = HounsfieldSlices(scan)
    assert known.segment(scan, slices).ood_score is None  # checkpoint metadata that cannot tell
    known.predictor = learning
    known.segment(scan, slices)
    learnt = OODScore.of(layers, learning.inferer.features.take(), threshold=2.0)
    metadata = {key: value for key, value in known.metadata.items() if key not in ("format", "sha256")}
    state = torch.load(weights, weights_only=True)
    for limit, notes in ((2.0, []), (0.001, ["unfamiliar"])):
        stated = {**learnt.as_metadata(), "limit": limit}
        write_checkpoint(tmp_path / "model.pt", state, **{**metadata, "familiarity": stated})
        segmenter = Segmenter(tmp_path / "model.pt", device="cpu")
        done = segmenter.segment(scan, slices)
        assert 0.001 < done.ood_score < 0.5  # these are the slices that it learnt, 19 with 16 centres
        assert [note.code for note in done.notes] == notes

    stated |= {"limit": 2.0, "limit_volumes": 0.001}
    write_checkpoint(tmp_path / "model.pt", state, **{**metadata, "familiarity": stated})
    segmenter = Segmenter(tmp_path / "model.pt", device="cpu")
    lone = replace(scan, values=scan.values[:, :, 9:10])
    for some, notes in ((scan, ["unfamiliar"]), (lone, [])):  # one slice is judged as a picture is
        assert [note.code for note in segmenter.segment(some, HounsfieldSlices(some)).notes] == notes

    stated["layers"] = [{"name": "nolayer", "channels": len(learnt.mean)}]
    write_checkpoint(tmp_path / "model.pt", state, **{**metadata, "familiarity": stated})
    with pytest.raises(UserError, match=r"model\.pt: familiarity names layers that the network has not: nolayer"):
        Segmenter(tmp_path / "model.pt", device="cpu")

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    noise = read_scan(make_scan(shape=(40, 36, 19))[0])
    noise.values = np.random.default_rng(0).integers(-1024, 1000, noise.values.shape).astype(np.int16)
    with pytest.raises(KeyboardInterrupt):
        segmenter.segment(noise, HounsfieldSlices(noise), progress=stop)
    assert segmenter.segment(scan, slices).ood_score == done.ood_score


@pytest.mark.parametrize("flips", [False, True])
def test_the_ood_score_is_that_of_the_slices_that_calibrate_sees(
    flips: bool, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "scan.nii.gz")
    steps = {"field_of_view": "lungs"}
    weights = make_checkpoint(tmp_path / "plain.pt", steps=steps)
    network, metadata = trained_network(weights, torch.device("cpu"))
    layers = deep_layers(network, 64)
    predictor = Predictor(network, metadata, torch.device("cpu"), flips, layers=tuple(layers))
    item = preprocessing_from_metadata(predictor.metadata)({"image": str(tmp_path / "scan.nii.gz")})
    predictor.scan_logits(item)
    rows = predictor.inferer.features.take()
    count = len(slices_in_view(item))
    assert count < 40
    assert count % 8  # so that batches reach beyond the box
    assert len(rows) == count  # as they are, of no flip
    learnt = OODScore.of(layers, rows[: count // 2], threshold=9.0)
    metadata = {"familiarity": learnt.as_metadata(), "operating_point": {"threshold": 0.5, "test_time_flips": flips}}
    segmenter = Segmenter(make_checkpoint(tmp_path / "model.pt", steps=steps, **metadata), device="cpu")
    scan = read_scan(tmp_path / "scan.nii.gz")
    found = segmenter.segment(scan, HounsfieldSlices(scan)).ood_score
    assert found == pytest.approx(float(learnt(rows).mean()), rel=1e-4)


def test_views_agree_in_the_slices_that_the_network_sees(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "scan.nii.gz")
    weights = make_checkpoint(tmp_path / "model.pt", steps={"field_of_view": "lungs"})
    scan = read_scan(tmp_path / "scan.nii.gz")
    alone = Segmenter(weights, device="cpu", backend="torch")
    assert alone.segment(scan, HounsfieldSlices(scan)).views_agree_percent is None
    item = preprocessing_from_metadata(alone.metadata)({"image": str(tmp_path / "scan.nii.gz")})
    images = item["image"].as_tensor()[..., slices_in_view(item)].movedim(-1, 0)
    with torch.inference_mode():
        views = [alone.predictor.network(images.flip(axes)).flip(axes) for axes in ((), (2,), (3,), (2, 3))]
    probability = torch.sigmoid(torch.stack(views))
    threshold = float(probability.median())
    marked = probability >= threshold
    expected = 100 * float(marked.all(dim=0).sum() / marked.any(dim=0).sum())
    segmenter = Segmenter(weights, device="cpu", backend="torch", test_time_flips=True, threshold=threshold)
    done = segmenter.segment(scan, HounsfieldSlices(scan))
    assert 0 < expected < 100
    assert done.views_agree_percent == pytest.approx(expected, abs=0.1)
    assert done.notes == []  # metadata of earlier versions state no limit

    stated = {"threshold": threshold, "test_time_flips": True}
    for least, codes in ((expected - 1, []), (99.9, ["border_unsure"])):
        point = {**stated, "least_views_agree_percent": least}
        weights = make_checkpoint(tmp_path / "limit.pt", steps={"field_of_view": "lungs"}, operating_point=point)
        for change, notes in (({}, codes), ({"threshold": threshold * 0.99}, []), ({"test_time_flips": 2}, [])):
            found = Segmenter(weights, device="cpu", backend="torch", **change).segment(scan, HounsfieldSlices(scan))
            assert [note.code for note in found.notes] == notes  # the limit holds as calibrated only


def test_small_lesions_are_left_out_where_the_voxel_size_is_known(weights: Path, make_scan: MakeScan) -> None:
    scan = read_scan(make_scan(affine=np.diag([-1.0, -1.0, 1.0, 1.0]))[0])
    strict = Segmenter(weights, device="cpu", smallest_lesion_mm3=1e9)
    scan.voxel_size_known = True
    assert strict.segment(scan, HounsfieldSlices(scan)).mask.sum() == 0
    scan.voxel_size_known = False
    done = strict.segment(scan, HounsfieldSlices(scan))
    assert done.mask.sum() > 0
    assert [note.code for note in done.notes] == ["small_lesions_kept"]


def test_rounded_values_share_the_memory_where_they_can(make_scan: MakeScan) -> None:
    scan = read_scan(make_scan()[0])
    scan.values = np.maximum(scan.values, -1024).astype(np.int16)
    scan.slope, scan.intercept = 1.0, 0.0
    assert np.shares_memory(HounsfieldSlices(scan).rounded(), scan.values)
    scan.intercept = -24.0
    slices = HounsfieldSlices(scan, "hu")
    assert not np.shares_memory(slices.rounded(), scan.values)
    np.testing.assert_array_equal(slices.rounded(), np.maximum(canonical(scan.values, scan.affine) - 24, -1024))


@pytest.mark.parametrize(("setting", "value"), [("threshold", 1.2), ("smallest_lesion_mm3", -1), ("threshold", "x")])
def test_settings_that_make_no_sense_are_refused(setting: str, value: object, weights: Path) -> None:
    """Before OpenVINO would compile the network."""
    compiling = mock.patch.object(ScanInferer, "prepare", side_effect=AssertionError)
    with compiling, pytest.raises(UserError, match=f"{setting} is .*expected"):
        Segmenter(weights, **{setting: value})


def test_weights_that_would_run_code_are_refused(weights: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"conv.weight": Evil()}, weights.with_name("evil.pt"))
    metadata = read_metadata(weights)
    write_metadata(weights.with_name("evil.pt"), metadata["network"], metadata["preprocessing"], {"name": "x"}, {})
    with pytest.raises(UserError, match=r"evil\.pt: no plain state dict"):
        Segmenter(weights.with_name("evil.pt"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
def test_every_stored_type_of_the_same_hu_gives_the_same_mask(dtype: str, segmenter: Segmenter, tmp_path: Path) -> None:
    levels = np.random.default_rng(1).integers(0, 100, (40, 36, 6))  # HU = 16 levels - 1100
    offset = -50 if dtype == "int8" else 0
    reference = nib.Nifti1Image((levels * 16.0 - 1100).astype(np.float32), np.diag([-1.0, -1.0, 2.0, 1.0]))
    nib.save(reference, tmp_path / "reference.nii")
    _, expected, threshold = segment(segmenter, tmp_path / "reference.nii")
    stored = (levels + offset).astype(dtype)
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(stored, reference.affine, header, dtype=dtype)
    image.header.set_slope_inter(16.0, -1100.0 - 16.0 * offset)
    nib.save(image, tmp_path / "stored.nii")
    raw = bytearray((tmp_path / "stored.nii").read_bytes())
    raw[112:120] = np.array([16.0, -1100.0 - 16.0 * offset], "<f4").tobytes()  # scl_slope, scl_inter
    raw[352:] = stored.tobytes(order="F")
    (tmp_path / "stored.nii").write_bytes(raw)
    scan, found, _ = segment(segmenter, tmp_path / "stored.nii", threshold)
    assert scan.values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, expected)


def test_a_few_values_that_are_no_numbers_are_air_and_said(segmenter: Segmenter, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(-600, 300, (40, 40, 10)).astype(np.float32)
    holes = np.random.default_rng(1).random(values.shape) < 0.004
    values[holes], values[0, 0, 0] = np.nan, np.inf
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "holes.nii")
    slices = HounsfieldSlices(read_scan(tmp_path / "holes.nii"))
    assert (slices.rounded()[holes] == -1024).all()
    assert any("NaN or infinite and are taken for air" in remark for remark in slices.map.remarks)
    values[:8] = np.nan
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "more.nii")
    with pytest.raises(UserError, match=r"more\.nii: 20\.\d% of the values are NaN or infinite"):
        HounsfieldSlices(read_scan(tmp_path / "more.nii"))


def test_warnings_do_not_round_a_number_across_its_limit() -> None:
    ood = SimpleNamespace(limit=lambda slices: 0.6656)
    given: Any = SimpleNamespace(ood=ood, least_views_agree_percent=63.2)
    (unfamiliar,), (unsure,) = Segmenter._ood_warning(given, 0.668, 30), Segmenter._border_warning(given, 63.16)
    assert "score is 0.668, at most 0.666 is usual" in unfamiliar.text
    assert "for 63.16 % of what any of them marks, at least 63.20 % is usual" in unsure.text
    (far,) = Segmenter._ood_warning(given, 0.7, 30)
    assert "score is 0.70, at most 0.67 is usual" in far.text
