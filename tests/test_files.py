from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from scripts.errors import UserError
from scripts.files import (
    CACHE,
    UNFINISHED,
    code_digest,
    locked,
    read_json,
    replace_folder,
    sha256,
    unfinished_folder,
    user_cache,
    write_atomic,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    write_atomic(target, lambda path: path.write_text("old"))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_atomic(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_name_keeps_the_suffixes(tmp_path: Path) -> None:
    seen = []
    write_atomic(tmp_path / "new" / "a.nii.gz", lambda path: (seen.append(path.name), path.write_text("x")))
    assert seen == ["a.nii.gz"]


def test_json_is_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"dice": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"dice": 0.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"dice": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"dice": 0.5}


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


HALF_DONE = """
import sys
from scripts.files import unfinished_folder
with unfinished_folder(sys.argv[1]) as folder:
    (folder / "half.nii.gz").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_that_writes_there(tmp_path: Path, bundle_root: Path) -> None:
    line = [sys.executable, "-c", HALF_DONE, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, cwd=bundle_root, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        write_json(tmp_path / "a.json", {})
        assert (folder / "half.nii.gz").exists()  # its process is still at work
        process.send_signal(signal.SIGKILL)
    assert (folder / "half.nii.gz").exists()
    write_json(tmp_path / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


KEEPS = """
import sys
from scripts.files import locked
with locked(sys.argv[1], wait=False):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_for_one_process_until_that_ends_or_is_killed(tmp_path: Path, bundle_root: Path) -> None:
    line = [sys.executable, "-c", KEEPS, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, cwd=bundle_root, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(UserError, match=r"another process works there; expected"), locked(tmp_path, wait=False):
            pass
        process.send_signal(signal.SIGKILL)
    with locked(tmp_path, wait=False):
        assert list(tmp_path.iterdir()) == []


FORKS = """
import os, sys, time
from scripts.files import locked
with locked(sys.argv[1], wait=False):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # now it has closed the lock
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_lock_ends_with_its_process_though_its_workers_live_on(tmp_path: Path, bundle_root: Path) -> None:
    line = [sys.executable, "-c", FORKS, str(tmp_path)]
    with subprocess.Popen(line, cwd=bundle_root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        with pytest.raises(UserError, match="another process works there"), locked(tmp_path, wait=False):
            pass
        process.kill()
        process.wait()
    try:
        with locked(tmp_path, wait=False):
            os.kill(worker, 0)  # it is there
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_thread_that_does_not_wait_is_refused_what_it_has_itself(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(UserError, match=r"another process works there; expected"), locked(tmp_path, wait=False):
                pass
    with locked(tmp_path, wait=False):
        pass


def test_no_interrupt_leaves_a_folder_locked_against_its_own_process(tmp_path: Path) -> None:
    class InterruptError(BaseException):
        pass

    armed, deadline = False, float("inf")

    def interrupt(*_: object) -> None:
        if armed or time.monotonic() > deadline:
            raise InterruptError

    def lock() -> float:
        began = time.perf_counter()
        with locked(tmp_path):
            pass
        return time.perf_counter() - began

    usual = sorted(lock() for _ in range(99))[50]
    random, kept, before = Random(0), list[BaseException](), signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(5000):  # one in a hundred left it locked
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + random.random() * 3 * usual)
                lock()
                armed = False
            except InterruptError as error:
                armed = False
                kept.append(error)  # with the frames that it came through, as while a run ends
            deadline = time.monotonic() + 60  # left locked, this lock would wait for ever
            signal.setitimer(signal.ITIMER_REAL, 61)
            lock()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(kept) > 100


def test_what_another_machine_makes_and_what_a_user_called_alike_is_left_alone(tmp_path: Path) -> None:
    with unfinished_folder(tmp_path / "other") as folder:
        mine = folder.name.rpartition(f"{os.getpid()}-")[0]  # machine and what tells its containers apart
    (tmp_path / "other").rmdir()
    others = [f"{UNFINISHED}{platform.node()}-of-mine", f"{UNFINISHED}elsewhere-999999999-abc", f"{UNFINISHED}notes"]
    others += [f"{mine}999999999-12-abc", f"{UNFINISHED}{platform.node()}-1-999999999-abc"]
    for name in others:
        (tmp_path / name).mkdir()
    with unfinished_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_an_earlier_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    (target / "mine").write_text("1")
    with pytest.raises(OSError, match="built"), unfinished_folder(tmp_path) as folder:
        replace_folder(folder / "built", target)
    assert (target / "mine").read_text() == "1"


def test_the_digest_of_code_is_that_of_every_module_in_the_folders(bundle_root: Path) -> None:
    files = sorted((bundle_root / "scripts/networks").rglob("*.py"))
    assert bundle_root / "scripts/networks/resunet/fusion.py" in files
    together = b"".join(file.read_bytes() for file in files)
    assert code_digest("networks") == hashlib.sha256(together).hexdigest()
    assert code_digest("networks", "losses") not in (code_digest("networks"), code_digest("losses"))


def test_where_the_cache_of_a_user_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache("models") == tmp_path / "lung_infection_ct" / "models"
    monkeypatch.setenv(CACHE, str(tmp_path / "mine"))
    assert user_cache("models") == tmp_path / "mine" / "models"
    (tmp_path / "file").touch()
    for unusable in ("off", "OFF", str(tmp_path / "file")):
        monkeypatch.setenv(CACHE, unusable)
        assert user_cache("models") is None


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "", "\ufeff{}"])
def test_what_is_no_json_is_one_kind_of_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "content.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"nested too deep|Expecting|BOM"):
        read_json(path)
    path.write_text("\ufeff{}", encoding="utf-8")
    assert read_json(path, "utf-8-sig") == {}


def test_a_key_that_json_holds_twice_is_refused(tmp_path: Path) -> None:
    """Python would keep the last, and leave out what the first holds."""
    (tmp_path / "a.json").write_text('{"a": 1, "test": [{"b": 1}, {"b": 2}]}')
    assert read_json(tmp_path / "a.json") == {"a": 1, "test": [{"b": 1}, {"b": 2}]}
    (tmp_path / "a.json").write_text('{"a": 1, "test": [{"b": 1, "c": 2, "b": 1}]}')
    with pytest.raises(ValueError, match="the key 'b' is there more than once"):
        read_json(tmp_path / "a.json")
