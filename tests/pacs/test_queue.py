"""The studies on disk: what waits, what is done, and that a part is never taken for the whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.pacs.queue import StudyQueue

STUDY, OTHER = "1.2.3", "1.2.4"
IMAGES = {f"1.2.3.{k}": bytes([k]) * 10 for k in range(4)}


@pytest.fixture
def queue(tmp_path: Path) -> StudyQueue:
    """A queue with a study of four images that is done, and another one that waits."""
    queue = StudyQueue(tmp_path)
    for instance, content in IMAGES.items():
        queue.store(STUDY, instance, content)
    queue.finish(STUDY, queue.version(STUDY))
    queue.store(OTHER, "1.2.4.1", b"image")
    return queue


def test_images_of_what_is_done_are_removed_and_come_again(queue: StudyQueue, tmp_path: Path) -> None:
    queue.remove_images(3600)
    assert sorted(path.stem for path in queue.images(STUDY).iterdir()) == sorted(IMAGES)
    queue.remove_images(0)
    assert not queue.images(STUDY).exists()
    assert queue.images(OTHER).is_dir()
    assert StudyQueue(tmp_path).waiting() == [OTHER]
    assert queue.lacking(STUDY) == 4
    for lacking, (instance, content) in zip((3, 2, 1, 0), IMAGES.items(), strict=True):
        queue.store(STUDY, instance, content)
        assert queue.lacking(STUDY) == lacking
    assert queue.waiting() == [OTHER, STUDY]
    queue.finish(STUDY, queue.version(STUDY))
    queue.store(STUDY, "1.2.3.9", b"a late one")
    assert queue.lacking(STUDY) == 0


def test_what_a_killed_node_left_unfinished_is_no_image_that_lacks(queue: StudyQueue) -> None:
    left = queue.images(STUDY) / ".unfinished-earlier-container-7-ab"
    left.mkdir()
    (left / "1.2.3.9.dcm").write_bytes(b"half")
    queue.finish(STUDY, queue.version(STUDY))
    queue.remove_images(0)
    for instance, content in IMAGES.items():
        queue.store(STUDY, instance, content)
    assert queue.lacking(STUDY) == 0


def test_a_removal_that_is_interrupted_leaves_no_part_of_a_study(
    queue: StudyQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(folder: Path) -> None:
        next(iter(sorted(folder.iterdir()))).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scripts.pacs.queue.shutil", SimpleNamespace(rmtree=stop))
        with pytest.raises(KeyboardInterrupt):
            queue.remove_images(0)
    again = StudyQueue(tmp_path)
    assert again.waiting() == [OTHER]
    again.remove_images(3600)
    assert sorted(path.name for path in (tmp_path / "studies" / STUDY).iterdir()) == ["done.json"]


def test_images_that_cannot_be_removed_stop_nothing(
    queue: StudyQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    queue.remove_images(0)
    assert len(list(queue.images(STUDY).iterdir())) == 4
    assert "cannot be removed" in caplog.text
    assert queue.waiting() == [OTHER]


def test_a_study_that_a_user_removes_is_gone(queue: StudyQueue, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "studies" / OTHER)
    assert not queue.is_quiet(OTHER, 0)
    assert queue.version(OTHER) is None
    assert queue.waiting() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": 1}'])
def test_a_damaged_record_makes_its_study_wait(content: str, queue: StudyQueue, tmp_path: Path) -> None:
    (tmp_path / "studies" / STUDY / "done.json").write_text(content)
    assert sorted(StudyQueue(tmp_path).waiting()) == [STUDY, OTHER]
    queue.remove_images(0)
    assert len(list(queue.images(STUDY).iterdir())) == 4
