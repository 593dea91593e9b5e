"""The node with an archive as its peer: studies in, results back, whatever happens between."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from tests.scan_fixtures import uid

pytest.importorskip("pynetdicom", reason="the extra `pacs` is not installed")

from pynetdicom import AE
from pynetdicom.sop_class import Verification

from scripts.__main__ import main
from scripts.files import locked
from scripts.pacs.node import Patience
from scripts.pacs.sending import NotSentError
from scripts.pipeline import result
from scripts.pipeline.case import Settings
from scripts.pipeline.result import write_mask
from tests.pacs.peers import Archive, RunningNode, store, wait_for, write_study

pytestmark = pytest.mark.usefixtures("one_slice_shown")
Start = Callable[..., RunningNode]


def modalities(archive: Archive, study: str = "study") -> list[str]:
    return sorted(str(one.Modality) for one in archive.of_study(uid(study)))


def test_a_study_comes_back_as_seg_and_sr(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node()
    files = write_study(tmp_path)
    store(node.peer, files)
    node.wait_until_done()
    assert modalities(archive) == ["SEG", "SR"]
    manifest = json.loads((tmp_path / "node/studies" / uid("study") / "results/manifest.json").read_text())
    (case,) = manifest["cases"]
    assert case["status"] == "done"
    assert manifest["finished"]


def test_pictures_and_pdf_come_back_when_asked_for(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node(settings=Settings(sc=True, pdf=True))
    store(node.peer, write_study(tmp_path))
    node.wait_until_done()
    pictures = len(list((tmp_path / "node/studies" / uid("study")).glob("results/*/infection_sc_*.dcm")))
    assert pictures > 1
    assert modalities(archive) == ["DOC", *["OT"] * pictures, "SEG", "SR"]
    assert len(archive.arrivals) == len(set(archive.arrivals))


def test_a_second_node_on_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dicom-node", "--send-to", "PACS@127.0.0.1:1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scripts", *words])
    with locked(tmp_path, wait=False), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "another process works there; expected" in line


def test_echo(start_node: Start) -> None:
    node = start_node()
    entity = AE("PACS")
    entity.add_requested_context(Verification)
    association = entity.associate(node.peer.host, node.peer.port, ae_title="LUNG_AI")
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_images_are_kept_as_they_were_sent(start_node: Start, tmp_path: Path) -> None:
    node = start_node(Patience(quiet_s=600))
    for syntax in (ImplicitVRLittleEndian, RLELossless):
        files = write_study(tmp_path, str(syntax), syntax=syntax)
        store(node.peer, files)
        kept = [dcmread(path) for path in node.queue.images(uid(str(syntax))).iterdir()]
        assert {one.file_meta.TransferSyntaxUID for one in kept} == {syntax}
        assert {one.PixelData for one in kept} == {dcmread(path).PixelData for path in files}


def test_unknown_titles_are_refused(start_node: Start, tmp_path: Path) -> None:
    node = start_node()
    files = write_study(tmp_path)
    with pytest.raises(NotSentError, match="refused the call"):
        store(node.peer, files, title="STRANGER")
    with pytest.raises(NotSentError, match="refused the call"):
        store(type(node.peer)("OTHER_AE", node.peer.host, node.peer.port), files)
    assert node.queue.waiting() == []


def test_each_axial_series_has_results(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node()
    store(node.peer, write_study(tmp_path, series=("a", "b")))
    node.wait_until_done()
    assert modalities(archive) == ["SEG", "SEG", "SR", "SR"]


def test_a_study_that_cannot_be_used_stops_no_other(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node()
    bad = write_study(tmp_path, "bad")
    bad = [path for path in bad if not path.name.endswith("001.dcm")]  # a gap and few slices still make a scan
    bad[0].write_bytes(bad[0].read_bytes()[:-300])
    store(node.peer, bad)
    store(node.peer, write_study(tmp_path, "good"))
    node.wait_until_done(2)
    assert modalities(archive, "good") == ["SEG", "SR"]
    assert modalities(archive, "bad") == []
    done = json.loads((tmp_path / "node/studies" / uid("bad") / "done.json").read_text())
    assert [one["status"] for one in done["cases"]] == ["refused"]


def test_results_wait_for_an_archive_that_refuses(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node()
    archive.status = 0xA700
    store(node.peer, write_study(tmp_path))
    wait_for(lambda: len(archive.arrivals) >= 2)
    assert not node.node.done
    archive.status = 0x0000
    node.wait_until_done()
    assert modalities(archive) == ["SEG", "SR"]
    assert len(set(archive.arrivals)) == 2  # the same objects each time: nothing was segmented again


def test_a_failed_study_that_a_user_removes_is_not_to_be_tried_again(
    start_node: Start, archive: Archive, tmp_path: Path
) -> None:
    node = start_node(Patience(quiet_s=0.1, pause_s=60))
    archive.status = 0xA700
    store(node.peer, write_study(tmp_path))
    wait_for(lambda: node.node.status() == "1 waiting, 0 done, 1 to be tried again")
    shutil.rmtree(tmp_path / "node/studies" / uid("study"))
    assert node.node.status() == "0 waiting, 0 done, 0 to be tried again"


def test_what_was_given_up_is_taken_up_by_the_next_start(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node(Patience(quiet_s=0.1, pause_s=0.1, retries=1))
    archive.status = 0xA700
    store(node.peer, write_study(tmp_path))
    wait_for(lambda: len(archive.arrivals) >= 2)
    node.stop()
    tried = len(archive.arrivals)
    archive.status = 0x0000
    node = start_node()
    node.wait_until_done()
    assert len(archive.arrivals) == tried + 2
    assert modalities(archive) == ["SEG", "SR"]


def test_a_study_that_is_sent_again_is_done_once(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node()
    files = write_study(tmp_path)
    store(node.peer, files)
    node.wait_until_done()
    store(node.peer, files)
    assert node.queue.waiting() == []
    node.stop()
    assert start_node().queue.waiting() == []
    assert len(archive.arrivals) == 2


def test_a_late_slice_makes_the_study_anew(start_node: Start, archive: Archive, tmp_path: Path) -> None:
    node = start_node()
    files = write_study(tmp_path)
    store(node.peer, files[:3])
    node.wait_until_done()
    store(node.peer, files[3:])
    node.wait_until_done(2)
    images = {
        str(item.ReferencedSOPInstanceUID)
        for one in archive.held.values()
        if one.Modality == "SEG"
        for series in one.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    assert len(images) == 4


def test_a_full_disk_is_tried_again(
    start_node: Start, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the study: nothing is done until there is room."""
    full = Event()
    full.set()

    def write(*given: object) -> object:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device", "infection.nii.gz")
        return write_mask(*given)

    monkeypatch.setattr(result, "write_mask", write)
    node = start_node()
    store(node.peer, write_study(tmp_path))
    wait_for(lambda: node.node.status().endswith("1 to be tried again"))
    assert not (tmp_path / "node/studies" / uid("study") / "done.json").exists()
    assert archive.arrivals == []
    full.clear()
    node.wait_until_done()
    assert modalities(archive) == ["SEG", "SR"]


def test_a_slice_that_comes_after_the_images_were_removed_makes_no_result_of_its_own(
    start_node: Start, archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = start_node(Patience(quiet_s=0.1, keep_s=0, pause_s=0.1))
    files = write_study(tmp_path)
    store(node.peer, files[:3])
    node.wait_until_done()
    study = tmp_path / "node/studies" / uid("study")
    wait_for(lambda: not (study / "images").exists())
    before = {path: path.read_bytes() for path in study.glob("results/*/*")}
    store(node.peer, files[3:])
    wait_for(lambda: "3 of its images were removed" in caplog.text)
    assert {path: path.read_bytes() for path in study.glob("results/*/*")} == before
    assert len(archive.arrivals) == 2
    store(node.peer, files[:3])
    node.wait_until_done(2)
    (report,) = study.glob("results/*/report.json")
    assert json.loads(report.read_text())["case"]["shape_voxels"][2] == 4


def test_images_are_removed_and_results_stay(start_node: Start, tmp_path: Path) -> None:
    node = start_node(Patience(quiet_s=0.1, keep_s=0))
    store(node.peer, write_study(tmp_path))
    node.wait_until_done()
    study = tmp_path / "node/studies" / uid("study")
    wait_for(lambda: not (study / "images").exists())
    assert list(study.glob("results/*/infection_seg.dcm"))
    assert node.queue.waiting() == []
