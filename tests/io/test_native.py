"""The process that runs ITK and GDCM, and processes forked beside it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from scripts.errors import UserError
from scripts.io import native
from scripts.io.dicom.reading import read_dicom
from scripts.io.itk.files import write_itk_bytes
from scripts.io.reading import read_scan

_FORKS = """
import os, signal, sys
from pathlib import Path
from scripts.io import native

def read():
    values = native.read(Path(sys.argv[1]), "NrrdImageIO", 24)
    return values.sum(), native._idle[-1].process.pid

first = read()
forked = os.fork()
if not forked:
    signal.alarm(60)  # ends it if it hangs
    assert not native._idle
    if sys.argv[2] == "reads":
        again = read()
        assert again[0] == first[0] and again[1] != first[1]
    sys.exit(3)
_, status = os.waitpid(forked, 0)
assert read() == first, "the reader of the parent is gone"
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["reads", "ends"])
def test_a_forked_process_reads_and_ends_and_leaves_its_parents_reader(tmp_path, what):
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)), str(path))
    done = subprocess.run([sys.executable, "-c", _FORKS, str(path), what], timeout=200, check=False)
    assert done.returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are not UTF-8")
def test_a_path_that_is_not_utf_8_is_refused_and_no_file_is_blamed(tmp_path, write_series):
    good, odd = tmp_path / "a.nrrd", tmp_path / os.fsdecode(b"M\xfcller")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((6, 20, 24), np.int16)), str(good))
    write_series(odd / "series", 3)
    (odd / "a.nrrd").write_bytes(good.read_bytes())
    read_scan(good)
    waiting = native._idle[-1].process.pid
    for refused in (
        lambda: read_dicom(odd / "series"),
        lambda: read_scan(odd / "a.nrrd"),
        lambda: write_itk_bytes(np.zeros((24, 20, 6), np.uint8), good, odd / "mask.nrrd"),
    ):
        with pytest.raises(UserError, match=r"M\\udcfcller.*: the path is not UTF-8, .*; expected: other names"):
            refused()
    assert native._idle[-1].process.pid == waiting
