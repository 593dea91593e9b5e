"""Whether a file is DICOM is decided in one place: the search, the archive,
the reader and the DICOM SEG agree."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, HangingProtocolStorage, ImplicitVRLittleEndian

from scripts.data.layouts.case import Datalist
from scripts.data.layouts.prepared import write_prepared
from scripts.errors import UserError
from scripts.files import fit_name
from scripts.io.dicom.archive import unpacked
from scripts.io.dicom.derived import Maker
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.recognition import HEAD, recognize
from scripts.io.dicom.seg import write_dicom_seg
from scripts.io.dicom.sources import read_sources
from scripts.io.monai_writer import MaskWriter
from scripts.io.reading import read_scan
from scripts.io.volume import Scan
from scripts.pipeline.case import read_case
from scripts.pipeline.discovery import find_scans, scans_root
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.lung_masks import find_mask

Write = Callable[..., np.ndarray]
MAKER = Maker("a", "1")
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"


def strip(file: Path, meta: bool) -> None:
    """Leaves out the preamble of a part 10 file and, unless `meta`, the meta header."""
    whole = file.read_bytes()
    length = int.from_bytes(whole[140:144], "little")  # (0002,0000), its value
    file.write_bytes(whole[132:] if meta else whole[144 + length :])


def seg_of(scan: Scan, folder: Path) -> Dataset:
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[3, 4, 2] = 1
    return dcmread(write_dicom_seg(mask, read_sources(scan), folder / "seg.dcm", MAKER))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize("ending", ["", ".IMA", ".DCM", ".dcm", ".17", ".img"])
def test_files_without_preamble_are_read_whatever_their_names(
    syntax: str, meta: bool, ending: str, tmp_path: Path, write_series: Write
) -> None:
    stored = write_series(tmp_path / "in", 4, syntax=syntax)
    for file in sorted((tmp_path / "in").iterdir()):
        strip(file, meta)
        file.rename(file.with_name(file.name + ending))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in (tmp_path / "in").iterdir():
            archive.write(file, f"study/{file.name}")
    for source, kind in ((tmp_path / "in", "dicom"), (tmp_path / "in.zip", "zip")):
        (case,) = expand_inputs([source], tmp_path / "out")
        assert (case.source, case.kind) == (source, kind)
        with ExitStack() as stack:
            scan = read_case(case, stack)
            np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
            assert [n.code for n in scan.notes if n.kind == "assumption"] == ["no_preamble"]
            seg = seg_of(scan, tmp_path / kind)
    assert seg.NumberOfFrames == 1
    assert str(seg.PatientName) == "Secret^Name"
    (one, *_) = sorted((tmp_path / "in").iterdir())
    assert [case.kind for case in expand_inputs([one], tmp_path / "out")] == ["dicom"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "a"),
        (b"\x08\x00", "a"),
        (b"\x08\x00\x16\x00" + b"\xff" * 90, "b.bin"),
        (b"x" * 400, "a.txt"),
        (b"\x00\x08" + bytes(300), "a"),
        (b"\x02\x00\x00\x00UL\x04\x00" + bytes(200), "a"),
        (b"\x1f\x8b" * 99, "x.gz"),
    ],
)
def test_other_files_are_not_dicom(content: bytes, name: str) -> None:
    assert recognize(content, name) == ""


def test_a_name_that_claims_dicom_is_not_passed_over(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path)
    for name in ("x.dcm", "x.IMA", "x.dicom"):
        for content in (b"", b"no DICOM at all" * 40):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=rf"{name}: truncated, damaged or no DICOM"):
                read_dicom(tmp_path)
        (tmp_path / name).unlink()


def test_big_endian_without_preamble_is_no_traceback(tmp_path: Path) -> None:
    head = b"\x00\x08\x00\x16UI\x00\x1a" + b"1.2.840.10008.5.1.4.1.1.2\0" + b"\x00\x08\x00\x18UI\x00\x021\0"
    assert recognize(head, "a") == "object"
    (tmp_path / "a").write_bytes(head)
    with pytest.raises(UserError, match="a: truncated"):
        read_dicom(tmp_path / "a")


def make_directory(path: Path) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = DICOMDIR_CLASS, "1.2.3"
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "DICOMDIR;1", "index.dcm"])
def test_a_dicomdir_stands_for_its_folder(name: str, tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "disc" / "IMAGES")
    make_directory(tmp_path / "disc" / name)
    for source in (tmp_path / "disc", tmp_path / "disc" / name):
        (case,) = expand_inputs([source], tmp_path / "out")
        assert (case.source, case.kind, case.folder) == (tmp_path / "disc", "dicom", "disc")
    assert read_dicom(tmp_path / "disc").values.shape[2] == 6


def test_objects_without_a_study_are_no_case_and_do_not_part_a_study(tmp_path: Path, write_series: Write) -> None:
    for folder in ("S1", "S2"):
        write_series(tmp_path / "in" / folder, 3, series=folder)
    protocol = Dataset()
    protocol.SOPClassUID, protocol.SOPInstanceUID = HangingProtocolStorage, "1.2.3"
    protocol.file_meta = FileMetaDataset()
    protocol.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for place in ("S1/0", "other/HP"):
        (tmp_path / "in" / place).parent.mkdir(exist_ok=True)
        protocol.save_as(tmp_path / "in" / place, enforce_file_format=True)
    (case,) = expand_inputs([tmp_path / "in"], tmp_path / "out")
    assert case.source == tmp_path / "in"
    (alone,) = expand_inputs([tmp_path / "in" / "other"], tmp_path / "out")
    with pytest.raises(UserError, match="Hanging Protocol"):
        read_dicom(alone.source)


def test_a_folder_of_damaged_files_stays_a_case(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "in" / "good")
    (tmp_path / "in" / "bad").mkdir()
    (tmp_path / "in" / "bad" / "a.dcm").write_bytes(bytes(500))
    cases = expand_inputs([tmp_path / "in"], tmp_path / "out")
    assert [case.source.name for case in cases] == ["bad", "good"]


def test_messages_about_an_archive_name_the_archive(tmp_path: Path, write_series: Write) -> None:
    def refusal(name: str) -> str:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in (tmp_path / "in").rglob("*"):
                archive.write(file, file.relative_to(tmp_path / "in"))
        (case,) = expand_inputs([tmp_path / name], tmp_path / "out")
        with pytest.raises(UserError) as caught, ExitStack() as stack:
            read_case(case, stack)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert str(caught.value).count(str(tmp_path)) == 1
        assert "dicom-" not in str(caught.value)
        return str(caught.value)

    write_series(tmp_path / "in" / "p1", 3, series="a")
    write_series(tmp_path / "in" / "p2", 3, series="b")
    assert "two.zip: 2 CT series" in refusal("two.zip")
    shutil.rmtree(tmp_path / "in" / "p2")
    whole = (tmp_path / "in" / "p1" / "a001").read_bytes()
    (tmp_path / "in" / "p1" / "a001").write_bytes(whole[:-9])
    assert "cut.zip/p1: a001: truncated" in refusal("cut.zip")


def test_an_encrypted_archive_is_called_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("IM1", b"secret")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[6] |= 1  # the flag in the entry's own header, then that in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip: 'IM1' is an encrypted entry"), unpacked(tmp_path / "x.zip"):
        pass


def test_a_file_of_a_series_is_no_scan_by_itself_but_its_folder_is(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, 1)
    with pytest.raises(UserError, match="a DICOM file"):
        read_scan(tmp_path / "a000")
    assert find_scans(str(tmp_path)) == [{"image": str(tmp_path)}]
    assert scans_root(str(tmp_path)) == str(tmp_path.parent)


def test_what_is_recognized_lies_at_the_start(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, 1, syntax=ImplicitVRLittleEndian)
    strip(tmp_path / "a000", meta=False)
    assert recognize((tmp_path / "a000").read_bytes()[:HEAD]) == "object"


NAMES = {
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "\\ISO 2022 IR 13\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO 2022 IR 13\\ISO 2022 IR 87": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "\\ISO 2022 IR 58": "Zhang^XiaoDong=张^小东=",
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 192": "Müller^張=王",
    "GB18030": "Wang^XiaoDong=王^小东=",
    "": "Plain^Name",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("character_set", NAMES)
def test_seg_repeats_the_name_of_any_character_set(character_set: str, tmp_path: Path, write_series: Write) -> None:
    def change(ds: Dataset, _: int) -> None:
        ds.SpecificCharacterSet = character_set.split("\\") if "\\" in character_set else character_set
        ds.PatientName = NAMES[character_set]

    write_series(tmp_path / "in", 4, change=change)
    scan = read_dicom(tmp_path / "in")
    source, seg = dcmread(scan.files[0]), seg_of(scan, tmp_path)
    assert seg.PatientName == source.PatientName
    if "IR 58" not in character_set:  # which pydicom writes into the source without its escape sequences
        assert str(seg.PatientName).rstrip("=") == NAMES[character_set].rstrip("=")


@pytest.mark.parametrize("number", [2**31 - 1, 2**31 - 1000, -(2**31), -1, 0, 7])
def test_number_of_the_seg_fits_its_type(number: int, tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "in", 4, change=lambda ds, k: setattr(ds, "SeriesNumber", number))
    found = int(seg_of(read_dicom(tmp_path / "in"), tmp_path).SeriesNumber)
    assert 1 <= found <= 2**31 - 1
    assert found != number


@pytest.mark.parametrize(("keyword", "count"), [("SOPInstanceUID", 1), ("SOPInstanceUID", 3), ("SeriesInstanceUID", 4)])
def test_slices_that_no_reference_tells_apart_get_no_seg(
    keyword: str, count: int, tmp_path: Path, write_series: Write
) -> None:
    write_series(tmp_path / "in", 4, change=lambda ds, k: setattr(ds, keyword, f"1.2.{k % count}"))
    scan = read_dicom(tmp_path / "in")
    with pytest.raises(UserError, match=keyword):
        seg_of(scan, tmp_path)
    assert not (tmp_path / "seg.dcm").exists()


LONG = {"latin": "x" * 247, "accented": "é" * 123, "japanese": "肺" * 82}


@pytest.mark.parametrize("kind", LONG)
def test_result_names_fit_the_file_system_and_differ(kind: str, tmp_path: Path) -> None:
    stem = LONG[kind]
    paths = [tmp_path / site / stem[:80] / f"{stem}.nii.gz" for site in ("a", "b")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    folders = {case.source: case.folder for case in expand_inputs(paths, tmp_path / "out")}
    assert {case.source: case.folder for case in expand_inputs(paths[::-1], tmp_path / "out")} == folders
    assert len({folder.casefold() for folder in folders.values()}) == 2
    for folder in folders.values():
        assert len(folder.encode()) <= 255
        (tmp_path / "out" / folder).mkdir(parents=True)


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_masks_of_inference_have_names_that_fit(
    kind: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    monkeypatch.setattr("scripts.io.monai_writer.write_mask", lambda mask, scan, path: written.append(Path(path)))
    for stem in (LONG[kind], LONG[kind][:-1] + "z", "short"):
        writer = MaskWriter()
        writer.set_data_array(np.zeros((1, 2, 2, 1), np.uint8))
        writer.set_metadata({"filename_or_obj": str(tmp_path / f"{stem}{ending}")})
        writer.write(str(tmp_path / f"{stem}_infection.nii.gz"))
    assert len(set(written)) == 3
    assert written[2].name == f"short_infection{ending}"
    for path in written:
        assert path.name.endswith(f"_infection{ending}")
        path.write_bytes(b"")


def test_a_lung_mask_is_found_by_a_name_that_fits(tmp_path: Path) -> None:
    name = "肺" * 84  # 252 bytes: a folder may be called so, a mask with its ending may not
    with pytest.raises(UserError, match="no lung mask"):
        find_mask(tmp_path, name)
    (tmp_path / fit_name(name, ".nii.gz")).write_bytes(b"")
    assert find_mask(tmp_path, name).name == fit_name(name, ".nii.gz")


@pytest.mark.parametrize("copy", [False, True])
def test_prepared_files_have_names_that_fit(copy: bool, tmp_path: Path) -> None:
    cases = []
    for k in range(2):
        (tmp_path / f"{k}.nii.gz").write_bytes(bytes([k]))
        cases.append(
            {"name": f"medseg_{'肺' * 90}{k}", "image": str(tmp_path / f"{k}.nii.gz"), "patient": None, "fold": 0}
        )
    datalist = {"training": cases, "test": [], "unlabeled": [], "validation": []}
    write_prepared(cast(Datalist, datalist), tmp_path / "out", copy)
    listed = json.loads((tmp_path / "out" / "datalist.json").read_text())["training"]
    assert [(tmp_path / "out" / case["image"]).read_bytes() for case in listed] == [b"\0", b"\1"]
    assert [case["name"] for case in listed] == [case["name"] for case in cases]


def test_shortened_names_are_stable_and_keep_their_ending() -> None:
    name = fit_name("肺" * 200, ".nii.gz")
    assert name == fit_name("肺" * 200, ".nii.gz") != fit_name("肺" * 201, ".nii.gz")
    assert name.startswith("肺" * 70)
    assert name.endswith(".nii.gz")
    assert 250 < len(name.encode()) <= 255
    assert fit_name("a" * 248, ".nii.gz") == "a" * 248 + ".nii.gz"
