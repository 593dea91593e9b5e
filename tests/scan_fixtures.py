"""DICOM series for the tests, written with pydicom, and the report of a small scan."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSNearLossless,
    generate_uid,
)

from scripts.inference.backends.choice import TORCH
from scripts.io.volume import Scan
from scripts.report.measure import measure_infection
from scripts.report.report import build_report, describe_model

AXIAL = (1, 0, 0, 0, 1, 0)
Change = Callable[[Dataset, int], None]


def uid(*words: object) -> str:
    """The same UID for the same words."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def make_stored(count: int, rows: int = 20, columns: int = 24, seed: int = 0) -> np.ndarray:
    """Stored values (Z, Y, X) uint16 without any symmetry, 12 bits, different in each slice."""
    return np.random.default_rng(seed).integers(0, 4096, (count, rows, columns), np.uint16)


def make_slice(stored: np.ndarray, position: Sequence[float], index: int, series: str = "a") -> Dataset:
    """One CT slice with complete headers; its identity follows from `series` and `index`."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, uid(series, index)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid("study"), uid(series), uid("frame")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Secret^Name", "SECRET-ID", "19700101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200301", "101500", "77", "SECRET-ACC"
    ds.ReferringPhysicianName, ds.InstitutionName, ds.StationName = "Secret^Doctor", "SECRET-HOSPITAL", "SECRET-CT"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 3, index + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Manufacturer, ds.ManufacturerModelName, ds.ConvolutionKernel, ds.KVP = "Maker", "Model 5", "B60f", 120
    ds.BodyPartExamined, ds.PatientPosition, ds.SliceThickness = "CHEST", "HFS", 2.5
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [*map(float, position)], [*map(float, AXIAL)]
    ds.PixelSpacing = [0.8, 0.7]
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 1 if stored.dtype.kind == "i" else 0
    if ds.PixelRepresentation:
        ds.BitsStored, ds.HighBit = 16, 15
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = stored.tobytes()
    return ds


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Writes a part 10 file; uncompressed, deflated, or with what pydicom's encoders make."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if UID(syntax).is_encapsulated:
        ds.compress(syntax, **({"jls_error": 2} if syntax == JPEGLSNearLossless else {}))
    ds.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True, little_endian=True, implicit_vr=syntax == "1.2.840.10008.1.2")
    return path


@pytest.fixture
def write_series() -> Callable[..., np.ndarray]:
    """Writes a series whose file names do not tell the order; returns its stored values (Z, Y,
    X)."""

    def write(
        folder: Path,
        positions: Sequence[Sequence[float]] | int = 6,
        *,
        stored: np.ndarray | None = None,
        series: str = "a",
        change: Change | None = None,
        syntax: str = ExplicitVRLittleEndian,
    ) -> np.ndarray:
        if isinstance(positions, int):
            positions = [(-10.0, -20.0, 100 + 2.5 * k) for k in range(positions)]
        stored = make_stored(len(positions)) if stored is None else stored
        names = np.random.default_rng(1).permutation(len(positions))
        for k, position in enumerate(positions):
            ds = make_slice(stored[k], position, k, series)
            if change is not None:
                change(ds, k)
            save(ds, folder / f"{series}{names[k]:03d}", syntax)
        return stored

    return write


@pytest.fixture
def make_enhanced() -> Callable[..., None]:
    """Turns a slice into an Enhanced CT file with one frame at each height."""

    def turn(ds: Dataset, heights: list[float], stored: np.ndarray) -> None:
        """Turns a slice into an Enhanced CT file with one frame at each height."""
        measures, orientation, rescale = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = ds.PixelSpacing, ds.SliceThickness
        orientation.ImageOrientationPatient = ds.ImageOrientationPatient
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
        shared = Dataset()
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        shared.PixelValueTransformationSequence = [rescale]
        frames = []
        for height in heights:
            place, frame = Dataset(), Dataset()
            place.ImagePositionPatient = [-10.0, -20.0, height]
            frame.PlanePositionSequence = [place]
            frames.append(frame)
        for keyword in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient"):
            delattr(ds, keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
            delattr(ds, keyword)
        ds.SOPClassUID, ds.NumberOfFrames = EnhancedCTImageStorage, len(heights)
        ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
        ds.PixelData = stored.tobytes()

    return turn


def validate(path: Path) -> None:
    """Lets dciodvfy (Debian: dicom3tools) look for errors, where it is installed."""
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, said


METADATA = {
    "format": 1,
    "sha256": "ab" * 32,
    "network": {"name": "resunet", "arguments": {}},
    "preprocessing": {"size": [256, 256]},
    "operating_point": {
        "threshold": 0.5,
        "smallest_lesion_mm3": 0.0,
        "test_time_flips": False,
        "least_slice_share": 0.0,
    },
    "data": {"name": "some patients", "synthetic": False},
}
BOX = [[0, 11], [0, 9], [0, 5]]
SLABS = {"plausible": True, "doubts": [], "cuts": []}


def make_small_report(known=True, infected=True, lungs=True, synthetic=False, lesion_free=None, **scan_changes):
    """A report of a scan of 12 x 10 x 6 voxels; its mask holds 2 x 3 x 2 voxels."""
    values = np.full((12, 10, 6), -600, np.int16)
    mask = np.zeros(values.shape, np.uint8)
    mask[2:4, 3:6, 2:4] = infected
    codes = np.ones((12, 10), np.uint8)
    codes[6:] = 2
    affine = np.diag([-0.7, -0.8, 5.0, 1.0])
    scan = Scan("case_1", Path("scans of erika/case_1.nii.gz"), "nifti", values, affine, voxel_size_known=known)
    for name, value in scan_changes.items():
        setattr(scan, name, value)
    given = (
        SimpleNamespace(slab=lambda z: codes, areas=lambda: np.full((6, 2), 60), box=lambda: BOX, **SLABS)
        if lungs
        else None
    )
    spacing = scan.spacing if known else None
    read = lambda z: values[:, :, z].astype(np.float32)  # noqa: E731
    measures = measure_infection(read, mask, spacing, given, lesion_free=lesion_free)
    metadata = {**METADATA, "data": {**METADATA["data"], "synthetic": synthetic}}
    weights = Path("weights of erika/model.pt")
    segmenter = {
        "threshold": 0.4,
        "smallest_lesion_mm3": 10.0,
        "views": 1,
        "through_plane_mm": 0.0,
        "least_slice_share": 0.0,
        "least_views_agree_percent": None,
        "keep_outside": False,
        "lesion_free": lesion_free,
    }
    model = describe_model(SimpleNamespace(metadata=metadata, weights=weights, backend=TORCH, **segmenter))
    return build_report(scan, measures, model, {"device": "cpu"}, {"network": 1.23456789})


@pytest.fixture(scope="session")
def small_report() -> Callable[..., dict[str, Any]]:
    """Makes the report of a small scan."""
    return make_small_report
