"""DICOMweb as input and as target of `segment`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from scripts.errors import UserError
from scripts.pacs.dicomweb import TOKEN, retrieve
from tests.monai_label.dicomweb_server import DicomWeb, _Handler
from tests.scan_fixtures import make_slice, make_stored, save, uid

pytest.importorskip("dicomweb_client", reason="the extra `pacs` is not installed")

Segment = Callable[..., int]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DicomWeb]:
    """A server with one CT series of four slices."""
    with DicomWeb() as server:
        for k, stored in enumerate(make_stored(4)):
            path = save(make_slice(stored, (-10.0, -20.0, 100 + 2.5 * k), k), tmp_path / "made" / str(k))
            server.add(dcmread(path))
        yield server


def test_a_study_is_retrieved_segmented_and_stored(
    segment: Segment, server: DicomWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "a-token")
    words = (f"{server.url}/studies/{uid('study')}", tmp_path / "out", "--stow", server.url)
    assert segment(*words) == 0
    assert len(server.segmentations()) == len(server.select(Modality="SR")) == 1
    assert server.tokens == {"Bearer a-token"}
    server.requests.clear()
    assert segment(*words) == 0  # found done: nothing is retrieved again
    assert not [one for one in server.requests if "/series/" in one]
    assert len(server.segmentations()) == 1


def test_results_that_the_server_refuses_are_a_failed_case(
    segment: Segment, server: DicomWeb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuses = True
    series = f"{server.url}/studies/{uid('study')}/series/{uid('a')}"
    assert segment(series, tmp_path / "out", "--stow", server.url) == 2
    assert "not stored" in capsys.readouterr().err
    (case,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert case["status"] == "failed"
    server.refuses = False
    assert segment(series, tmp_path / "out", "--stow", server.url) == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"][0]["status"] == "found done"


def test_what_cannot_be_retrieved_is_the_users_mistake(
    segment: Segment, server: DicomWeb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for address, expected in (
        (f"{server.url}/studies/1.2.3", "no CT series"),
        (f"{server.url}/studies/1.2.3/series/4.5", "404"),
        (server.url, "/studies/UID"),
        ("http://127.0.0.1:9/studies/1.2.3", "a DICOMweb server that you may use"),
    ):
        assert segment(address, tmp_path / "out") == 2
        assert expected in capsys.readouterr().err
    assert not list(tmp_path.glob("out/downloads/*/*"))


def test_mistakes_are_told_before_anything_is_downloaded(
    segment: Segment, server: DicomWeb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, scans = f"{server.url}/studies/{uid('study')}", tmp_path / "scans"
    scans.mkdir()
    (scans / "scan.nii.gz").touch()
    for words, expected in (
        ((study, scans), "OUTPUT holds 1 scan beside the inputs"),
        ((study, tmp_path / "missing.nii.gz", tmp_path / "out"), "missing.nii.gz: no such file"),
    ):
        assert segment(*words) == 2
        assert expected in capsys.readouterr().err
    assert not server.requests
    assert not (tmp_path / "out").exists()
    assert [path.name for path in scans.iterdir()] == ["scan.nii.gz"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"[" * 100_000, r"cannot be read \(RecursionError\)"),
        (b'{"a": 1}', r"cannot be read \(\w+\)"),
        (b"[{}]", r"cannot be read \(KeyError\)"),
        (b'[{"0020000E": {"Value": ["../x"]}}]', "'../x' is no UID"),
        (b'[{"0020000E": {"vr": "UI", "Value": ["1.2"]}}]', r"cannot be read \(InvalidDicomError\)"),
    ],
)
def test_an_answer_that_is_no_dicomweb_is_refused_and_leaves_nothing(
    answer: bytes, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Handler, "do_GET", lambda self: self._answer(200, "application/dicom+json", answer))
    with DicomWeb() as server, pytest.raises(UserError, match=found):
        retrieve(f"{server.url}/studies/1.2.3", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_images_of_another_series_are_refused(server: DicomWeb, tmp_path: Path) -> None:
    server.select = lambda **_: [*server.instances.values()]  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"series 1\.2\.4: the server sent something else"):
        retrieve(f"{server.url}/studies/1.2.3/series/1.2.4", tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_series_without_images_is_refused_each_time(
    server: DicomWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "multipart/related; type=application/dicom; boundary=part"
    monkeypatch.setattr(_Handler, "do_GET", lambda self: self._answer(200, kind, b"--part--"))
    for _ in range(2):
        with pytest.raises(UserError, match=r"sent no image|cannot be read"):
            retrieve(f"{server.url}/studies/1.2.3/series/1.2.4", tmp_path / "out")


def test_images_are_those_of_the_server(server: DicomWeb, tmp_path: Path) -> None:
    folder = retrieve(f"{server.url}/studies/{uid('study')}", tmp_path)
    found = {str(one.SOPInstanceUID): one.PixelData for one in map(dcmread, folder.rglob("*.dcm"))}
    assert found == {name: one.PixelData for name, one in server.instances.items()}
