"""The MONAI Label server with a DICOMweb server as studies: DICOM SEG, and whose label it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from scripts.commands.segment import segment
from scripts.inference.metadata import read_metadata
from scripts.monai_label.deployment import NAME
from tests.monai_label.conftest import AS_TESTED
from tests.monai_label.dicomweb_server import DicomWeb, copied

Server = Any  # tests/monai_label/conftest.py

pytestmark = [pytest.mark.monailabel, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
MODEL = f"{NAME}_demo"


def uid(*words: object) -> str:
    """The same UID for the same words."""
    return str(generate_uid(entropy_srcs=[str(word) for word in words]))


IMAGES = {number: uid("series", number) for number in (1, 2, 3)}


def ct_series(scan: nib.Nifti1Image, number: int) -> list[Dataset]:
    """The slices of a phantom as CT images, the last one first."""
    stored, to_lps = np.asarray(scan.dataobj).astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine
    across, down, _ = (to_lps[:3, axis] / np.linalg.norm(to_lps[:3, axis]) for axis in range(3))
    slices = []
    for index in reversed(range(stored.shape[2])):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid("slice", number, index)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", number), IMAGES[number]
        ds.FrameOfReferenceUID, ds.Modality, ds.InstanceNumber = uid("frame", number), "CT", index + 1
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = f"P^{number}", f"P{number}", "", ""
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.SeriesNumber = "20200301", "101500", "1", 2
        ds.AccessionNumber, ds.ReferringPhysicianName, ds.BodyPartExamined = "", "", "CHEST"
        ds.Manufacturer, ds.ImageType = "Maker", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = [float(round(one, 6)) for one in to_lps[:3] @ [0, 0, index, 1]]
        ds.ImageOrientationPatient = [float(one) for one in (*across, *down)]
        ds.PixelSpacing = [float(np.linalg.norm(to_lps[:3, axis])) for axis in (1, 0)]
        ds.SliceThickness = float(np.linalg.norm(to_lps[:3, 2]))
        ds.Rows, ds.Columns = stored.shape[1], stored.shape[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 1
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = stored[:, :, index].T.tobytes()
        slices.append(ds)
    return slices


@pytest.fixture(scope="module")
def dicomweb() -> Iterator[DicomWeb]:
    """A DICOMweb server, empty to begin with."""
    with DicomWeb() as running:
        yield running


@pytest.fixture(scope="module")
def remote(
    tmp_path_factory: pytest.TempPathFactory,
    make_checkpoint: Callable[..., Path],
    monai_label_tools: Any,
    dicomweb: DicomWeb,
) -> Iterator[Server]:
    """The assembled app with three phantoms on the DICOMweb server as studies."""
    folder = tmp_path_factory.mktemp("dicomweb")
    words, deployment, url = monai_label_tools.assembled_here(folder, make_checkpoint)
    for number in IMAGES:
        dicomweb.add(*ct_series(nib.load(deployment / f"studies/phantom_00{number}.nii.gz"), number))
    words[words.index("--studies") + 1] = dicomweb.url
    with monai_label_tools.launched(words, folder, deployment, url) as running:
        yield running
    assert [path.name for path in (folder / "home/tmp").iterdir() if path.is_file() and ".json" not in path.name] == []


@pytest.fixture
def expected(remote: Server, dicomweb: DicomWeb, tmp_path: Path) -> nib.Nifti1Image:
    """The mask of `segment` for the first series, from files."""
    for one in dicomweb.select(SeriesInstanceUID=IMAGES[1]):
        path = tmp_path / "scans" / "ct" / f"{one.SOPInstanceUID}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        one.save_as(path, enforce_file_format=True)
    weights = remote.deployment / "active" / "model.pt"
    segment([tmp_path / "scans"], tmp_path / "results", weights=weights, device="cpu", quiet=True)
    (mask,) = (tmp_path / "results").rglob("infection.nii.gz")
    found = nib.load(mask)
    assert 0 < found.get_fdata().mean() < 1
    return found


def dicom_seg(server: Server, number: int, **params: object) -> requests.Response:
    """The documented call, with parameters."""
    query = {"image": IMAGES[number], "output": "dicom_seg"}
    files = {"params": (None, json.dumps(params))}
    return requests.post(f"{server.url}/infer/{MODEL}", params=query, files=files, timeout=600)


def in_ras(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.as_closest_canonical(image)


def voxels(seg: Dataset, series: list[Dataset], shape: tuple[int, ...]) -> np.ndarray:
    """The mask (X, Y, Z) of a SEG, by the slices that its frames refer to;
    Z as InstanceNumber counts."""
    numbers = {str(one.SOPInstanceUID): int(one.InstanceNumber) - 1 for one in series}
    mask = np.zeros(shape, np.uint8)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        mask[:, :, numbers[str(source)]] |= frame.T
    return mask


def test_the_image_is_the_mask_of_segment(remote: Server, expected: nib.Nifti1Image, tmp_path: Path) -> None:
    answer = remote.infer(IMAGES[1])
    assert answer.status_code == 200, answer.text
    (tmp_path / "answer.nii.gz").write_bytes(answer.content)
    found, wanted = in_ras(nib.load(tmp_path / "answer.nii.gz")), in_ras(expected)
    np.testing.assert_array_equal(found.get_fdata(), wanted.get_fdata())
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-3)


def test_the_documented_call_gives_dicom_seg_of_the_same_voxels(
    remote: Server, dicomweb: DicomWeb, expected: nib.Nifti1Image
) -> None:
    line = "/infer/$MODEL?image=UID&output=dicom_seg"
    assert line in (ROOT / "docs/monai_label.md").read_text()
    answer = dicom_seg(remote, 1, **AS_TESTED)
    assert answer.status_code == 200, answer.text
    seg, series = dcmread(BytesIO(answer.content)), dicomweb.select(SeriesInstanceUID=IMAGES[1])
    assert seg.Modality == "SEG"
    assert (seg.PatientID, seg.StudyInstanceUID) == ("P1", uid("study", 1))
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == IMAGES[1]
    (segment,) = seg.SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("infection", "AUTOMATIC")
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "409774005"  # inflammation, no spleen
    wanted = expected.as_reoriented(nib.io_orientation(np.diag([-1.0, -1.0, 1.0, 1.0]) @ expected.affine))  # to LPS
    np.testing.assert_array_equal(voxels(seg, series, wanted.shape), wanted.get_fdata().astype(np.uint8))


def status(server: Server) -> dict[str, Any]:
    return requests.get(f"{server.url}/datastore/", timeout=60).json()


def trained_on(server: Server) -> list[dict[str, str]]:
    return requests.get(f"{server.url}/datastore/", params={"output": "train"}, timeout=60).json()


def put(server: Server, number: int, label: Path, **query: str) -> requests.Response:
    query = {"image": IMAGES[number], **query}
    files = {"label": (label.name, label.read_bytes())}
    return requests.put(f"{server.url}/datastore/label", params=query, files=files, timeout=60)


@pytest.fixture
def labelled(remote: Server, dicomweb: DicomWeb) -> Iterator[None]:
    """Takes every SEG from the server again."""
    yield
    for one in dicomweb.segmentations():
        del dicomweb.instances[str(one.SOPInstanceUID)]


@pytest.fixture
def corrected(remote: Server, tmp_path: Path) -> Path:
    """An annotator's label of the first series: a part of what the model marked."""
    path = tmp_path / "corrected.nii.gz"
    path.write_bytes(remote.infer(IMAGES[1]).content)
    mask = nib.load(path)
    values = np.asarray(mask.dataobj).copy()
    values[: values.shape[0] // 2] = 0
    values[:, :, :5] = 0
    assert values.any()
    nib.save(nib.Nifti1Image(values, mask.affine, mask.header), path)
    return path


@pytest.mark.usefixtures("labelled")
def test_a_mask_of_the_model_is_no_label_and_one_of_an_annotator_is(
    remote: Server, dicomweb: DicomWeb, corrected: Path
) -> None:
    assert status(remote)["total"] == 3
    assert remote.infer(IMAGES[1], save_label=True).status_code == 200
    claims = {"name": "infection", "segmentAttribute": {"SegmentAlgorithmType": "MANUAL"}}
    for number, segment_info in ((1, {"name": "infection"}), (2, {"name": "infection"}), (3, claims)):
        answer = dicom_seg(remote, number, label_info=[segment_info])
        dicomweb.add(dcmread(BytesIO(answer.content)))  # as a client stores what it was answered
    assert len(dicomweb.segmentations()) == 3
    assert status(remote)["completed"] == 0
    assert trained_on(remote) == []
    refused = remote.post(f"train/{MODEL}", {"device": "cpu", "max_epochs": 1}, run_sync=True)
    assert refused.status_code == 400
    assert "0 scans have a final label" in refused.text

    saved = put(remote, 1, corrected)
    assert saved.status_code == 200, saved.text
    assert status(remote)["completed"] == 1
    (pair,) = trained_on(remote)
    assert Path(pair["image"]).name == f"{IMAGES[1]}.nii.gz"
    np.testing.assert_array_equal(nib.load(pair["label"]).get_fdata(), nib.load(corrected).get_fdata())
    seg = dicomweb.segmentations()[-1]
    assert [one.SegmentAlgorithmType for one in seg.SegmentSequence] == ["SEMIAUTOMATIC"]
    mask = in_ras(nib.load(corrected)).get_fdata()[::-1, ::-1].astype(np.uint8)  # to LPS
    series = dicomweb.select(SeriesInstanceUID=IMAGES[1])
    np.testing.assert_array_equal(voxels(seg, series, mask.shape), mask)
    for strategy in ("first", "random", "epistemic"):
        assert remote.post(f"activelearning/{strategy}", {}).json()["id"] in (IMAGES[2], IMAGES[3])

    request = {"device": "cpu", "max_epochs": 1, "val_split": 0}
    before = (remote.deployment / "active").readlink()
    assert remote.post(f"train/{MODEL}", request).status_code == 200  # in the background: a process of its own
    assert remote.training_status()["status"] == "DONE"
    assert (remote.deployment / "active").readlink() != before
    metadata = read_metadata(remote.deployment / "active" / "model.pt")
    assert metadata["data"]["training_scans"] == [f"{IMAGES[1]}.nii.gz"]


@pytest.mark.usefixtures("labelled")
def test_a_label_from_another_workstation_is_copied_and_the_newest_counts(
    remote: Server, dicomweb: DicomWeb, corrected: Path
) -> None:
    put(remote, 1, corrected)
    (own,) = dicomweb.segmentations()
    newer, older = copied(own), copied(own)
    newer.ContentDate, older.ContentDate = "20990101", "19990101"
    pixels = newer.pixel_array.copy()
    frames = np.zeros_like(pixels)
    frames[0] = pixels[0]  # one slice of what was marked
    newer.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dicomweb.add(newer, older)
    (pair,) = trained_on(remote)
    found = nib.load(pair["label"]).get_fdata()
    assert found.shape == nib.load(pair["image"]).shape
    mask = in_ras(nib.load(pair["label"])).get_fdata()[::-1, ::-1].astype(np.uint8)
    series = dicomweb.select(SeriesInstanceUID=IMAGES[1])
    np.testing.assert_array_equal(mask, voxels(newer, series, mask.shape))
    assert found.sum() == pixels[0].sum()

    moved = copied(newer)
    moved.ContentDate = "20990102"
    for groups in moved.PerFrameFunctionalGroupsSequence:
        groups.PlanePositionSequence[0].ImagePositionPatient[0] += 0.5
    dicomweb.add(moved)
    assert trained_on(remote) == []
    assert "is left out: lies 0." in remote.log.read_text()


@pytest.mark.usefixtures("labelled")
def test_a_label_that_does_not_belong_is_refused_and_the_earlier_one_stays(
    remote: Server, dicomweb: DicomWeb, corrected: Path, tmp_path: Path
) -> None:
    assert put(remote, 1, corrected).status_code == 200
    good, path = nib.load(corrected), tmp_path / "bad.nii.gz"
    values = np.asarray(good.dataobj)
    shifted = good.affine.copy()
    shifted[0, 3] += 1
    for array, affine, text in (
        (values, shifted, "lies up to 1 mm off its image"),
        (values[:, :, 1:], good.affine, "(left-right, front-back, head-foot); expected: those of "),
        (np.zeros_like(values), good.affine, "DICOM SEG needs a segment"),
    ):
        nib.save(nib.Nifti1Image(array, affine), path)
        answer = put(remote, 1, path)
        assert answer.status_code == 400, answer.text
        assert text in answer.json()["detail"]
    (tmp_path / "voxels.bin").write_bytes(b"\1" * 100)
    answer = put(remote, 1, tmp_path / "voxels.bin")
    assert (answer.status_code, "one byte for each voxel" in answer.text) == (400, True), answer.text
    dicomweb.refuses = True
    try:
        nib.save(nib.Nifti1Image(np.ones_like(values), good.affine), path)
        assert put(remote, 1, path).status_code == 502
    finally:
        dicomweb.refuses = False
    assert len(dicomweb.segmentations()) == 1
    (pair,) = trained_on(remote)
    np.testing.assert_array_equal(nib.load(pair["label"]).get_fdata(), values)
    turned = good.as_reoriented(np.array([[1, 1], [0, 1], [2, -1]]))  # another stored order is fine
    nib.save(turned, path)
    assert put(remote, 1, path).status_code == 200
    (tmp_path / "whole.bin").write_bytes(values.astype(np.uint8).tobytes(order="F"))  # as OHIF sends it
    assert put(remote, 1, tmp_path / "whole.bin").status_code == 200
    (pair,) = trained_on(remote)
    np.testing.assert_array_equal(nib.load(pair["label"]).get_fdata(), values)


def test_what_is_no_series_of_the_server_is_refused(remote: Server, dicomweb: DicomWeb, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    dicomweb.select(SeriesInstanceUID=IMAGES[1])[0].save_as(tmp_path / "outside/a.dcm", enforce_file_format=True)
    for image in (uid("nobody"), "../..", str(tmp_path / "outside"), "nobody"):
        answer = remote.infer(image)
        assert (answer.status_code, "no such image" in answer.text) == (404, True), answer.text
        query = {"label": image, "tag": "final"}
        assert requests.get(f"{remote.url}/datastore/label", params=query, timeout=60).status_code == 404
    assert [path.name for path in tmp_path.rglob("*")] == ["outside", "a.dcm"]
    files = {"file": ("a.nii.gz", b"x")}
    uploads = [
        requests.put(f"{remote.url}/datastore/image", params={"image": one}, files=files) for one in ("../a", "a")
    ]
    assert [one.status_code for one in uploads] == [400, 400]
    assert remote.alive()


@pytest.mark.parametrize("fault", ["a slice is missing", "the gantry was tilted", "a slice is there twice"])
def test_a_series_that_is_no_even_stack_is_refused(fault: str, remote: Server, dicomweb: DicomWeb) -> None:
    series = ct_series(nib.load(remote.deployment / "studies/phantom_001.nii.gz"), 1)
    for index, one in enumerate(series):
        one.SeriesInstanceUID = uid(fault)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid(fault, index)
        if fault == "the gantry was tilted":
            one.ImagePositionPatient[1] += index
    if fault == "a slice is missing":
        del series[7]
    elif fault == "a slice is there twice":
        series[7].ImagePositionPatient = series[6].ImagePositionPatient
    dicomweb.add(*series)
    answer = remote.infer(uid(fault))
    for one in series:
        del dicomweb.instances[str(one.SOPInstanceUID)]
    assert (answer.status_code, "off an even stack" in answer.text) == (400, True), answer.text


def test_requests_are_guarded_as_with_a_folder(remote: Server, tmp_path: Path) -> None:
    code = f"$open({str(tmp_path / 'proof')!r}, 'w').write('x') * 0.5"
    answers = [remote.infer(IMAGES[1], threshold=code), remote.infer(IMAGES[1], label_info=[{"name": code}])]
    answers.append(remote.post(f"train/{MODEL}", {"max_epochs": code, "device": "cpu"}, run_sync=True))
    assert [one.status_code for one in answers] == [400] * 3, [one.text for one in answers]
    assert not (tmp_path / "proof").exists()
    foreign = {"Origin": "https://evil.example.org"}
    for path in ("datastore/", "proxy/dicom/series"):
        assert requests.get(f"{remote.url}/{path}", headers=foreign, timeout=60).status_code == 403
