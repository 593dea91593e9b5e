from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged, Orientationd
from pydicom import Dataset

from scripts.errors import UserError
from scripts.inference.segmenter import HounsfieldSlices
from scripts.io.dicom.reading import read_dicom
from scripts.io.monai_reader import ScanReader
from scripts.io.monai_writer import MaskWriter
from scripts.pipeline.discovery import discover, find_scans, scans_root
from scripts.pipeline.inputs import expand_inputs
from scripts.transforms.intensity import IntensityGuardd


def test_scans_are_found_below_a_folder_or_by_name(tmp_path: Path) -> None:
    for name in ("b/x.nii.gz", "a/x.nii.gz", "c.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [scan["image"] for scan in find_scans(str(tmp_path))] == [
        str(tmp_path / name) for name in ("a/x.nii.gz", "b/x.nii.gz", "c.PNG")
    ]
    assert find_scans(str(tmp_path / "c.PNG")) == [{"image": str(tmp_path / "c.PNG")}]
    assert scans_root(str(tmp_path / "c.PNG")) == str(tmp_path) == scans_root(str(tmp_path))


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"1 files and no scan; expected: \.nii\.gz, \.nii, .*\.png"):
        find_scans(str(tmp_path))


def test_two_scans_with_one_mask_are_refused(tmp_path: Path) -> None:
    for name in ("x.nii.gz", "x.nii", "x.png"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"x\.nii and .*x\.nii\.gz: would be given the same mask"):
        find_scans(str(tmp_path))


def test_names_may_hold_dots_and_hidden_files_are_no_scans(tmp_path: Path) -> None:
    for name in ("1.2.840.1.nii.gz", "1.2.840.2.nii.gz", "._1.2.840.1.nii.gz"):
        (tmp_path / name).write_text("")
    assert len(find_scans(str(tmp_path))) == 2


def test_both_entries_find_the_same_scans(tmp_path: Path, write_series: Callable[..., np.ndarray]) -> None:
    write_series(tmp_path / "in" / "p1", 2)
    write_series(
        tmp_path / "in" / "p2" / "s", 2, series="b", change=lambda ds, k: setattr(ds, "StudyInstanceUID", "1.2")
    )
    (tmp_path / "in" / "p1" / "key.png").write_text("")
    (tmp_path / "in" / "x.nii.gz").write_text("")
    with zipfile.ZipFile(tmp_path / "in" / "p3.zip", "w") as archive:
        archive.write(tmp_path / "in" / "p1" / "a000", "a000")
    found = [Path(scan["image"]) for scan in find_scans(str(tmp_path / "in"))]
    assert found == [case.source for case in expand_inputs([tmp_path / "in"], tmp_path / "out")]
    assert [path.name for path in found] == ["p1", "s", "p3.zip", "x.nii.gz"]
    assert scans_root(str(tmp_path / "in" / "p1")) == str(tmp_path / "in")


def test_a_study_that_begins_in_the_folder_of_another_is_told(
    tmp_path: Path, write_series: Callable[..., np.ndarray]
) -> None:
    """A medium's numbered folders: the second study begins in the first one's."""
    for folder, series, study in (("1", "a", "1.1"), ("1", "b", "1.2"), ("2", "b", "1.2")):
        write_series(
            tmp_path / folder, 2, series=series, change=lambda ds, k, uid=study: setattr(ds, "StudyInstanceUID", uid)
        )
    told: list[str] = []
    assert [source.name for source, _ in discover(tmp_path, passed_over=told)] == ["1", "2"]
    found = "images of a study that goes on in another folder (1/b001), whose scan may lack slices"
    assert told == [f"{tmp_path}: {found}; expected: a folder for each study"]
    told.clear()
    discover(tmp_path / "1", passed_over=told)  # the reader lists its series
    assert told == []


@pytest.mark.parametrize("name", ["1.2.840", "1.2.840.zip"])
def test_dicom_is_loaded_and_its_mask_written_as_in_segment(
    name: str, tmp_path: Path, write_series: Callable[..., np.ndarray]
) -> None:
    stored = np.random.default_rng(0).integers(0, 2000, (6, 20, 24), np.uint16)
    stored[:, :3] = 4095

    def change(ds: Dataset, k: int) -> None:
        ds.PixelPaddingValue = 4095

    folder = tmp_path / "in" / "1.2.840"
    write_series(folder, stored=stored, change=change)
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / "in" / name, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
    load = LoadImaged("image", reader=ScanReader(), ensure_channel_first=True)
    steps = Compose([load, Orientationd("image", axcodes="LPS", labels=None), IntensityGuardd("image")])
    image = steps({"image": str(tmp_path / "in" / name)})["image"]
    scan = read_dicom(folder)
    slices = HounsfieldSlices(scan)
    np.testing.assert_array_equal(image[0], np.stack([slices[z] for z in range(len(slices))], axis=-1))
    assert float(image[0].max()) < 1000  # padding became air
    writer = MaskWriter()
    writer.set_data_array(np.ones((1, *scan.values.shape), np.uint8))
    writer.set_metadata(image.meta)
    writer.write(str(tmp_path / f"{Path(name).stem}_infection.nii.gz"))
    written = nib.load(tmp_path / "1.2.840_infection.nii.gz")
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-4)
    assert written.shape == scan.values.shape
