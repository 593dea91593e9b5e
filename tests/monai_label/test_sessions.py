"""Sessions of 3D Slicer that outlast a server; in MONAI Label's own environment."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parents[2] / ".venv-monailabel/bin/python"
CLEAN_UP = """
from scripts.monai_label.serving.sessions import LastingSessions
sessions = LastingSessions(sys.argv[1])
number = sessions.remove_expired()
print(json.dumps([number, sorted(os.listdir(sys.argv[1])), sessions.get_session("new_half") is None]))
"""

pytestmark = [
    pytest.mark.monailabel,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="MONAI Label's environment is absent"),
]


def test_what_a_killed_server_left_unfinished_hinders_no_start(
    in_label_environment: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Sessions without notes, with half of them, and whole ones: of today, and of yesterday."""
    for age, then in (("new", time.time()), ("old", time.time() - 86400)):
        for kind in ("none", "half", "whole"):
            folder = tmp_path / f"{age}_{kind}"
            folder.mkdir()
            scan = folder / "scan.nii.gz"
            scan.write_bytes(b"a scan")
            notes = json.dumps({"image": str(scan), "last_access_ts": int(then), "expiry": 3600})
            if kind != "none":
                (folder / "meta.info").write_text(notes if kind == "whole" else notes[:9])
            os.utime(folder, (then, then))
    done = in_label_environment(CLEAN_UP, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [3, ["new_half", "new_none", "new_whole"], True]
