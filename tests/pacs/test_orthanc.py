"""The node as a process beside a real Orthanc, which forwards every CT series to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.pacs.peers import store, wait_for, write_study
from tests.scan_fixtures import uid

pytest.importorskip("pynetdicom", reason="the extra `pacs` is not installed")

from scripts.pacs.peers import Peer
from scripts.pacs.sending import NotSentError

ROOT = Path(__file__).resolve().parents[2]
FORWARD = """
function OnStableSeries(series, tags, metadata)
   if tags['Modality'] == 'CT' then
      RestApiPost('/modalities/node/store', DumpJson({Resources = {series}, Synchronous = false}))
   end
end
"""
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = pytest.mark.skipif(
    not shutil.which("Orthanc"), reason="no Orthanc on the PATH (Debian: apt install orthanc)"
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Orthanc:
    """A running Orthanc; `node_port` is where it forwards CT series to."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir()
        self.peer = Peer("PACS", "127.0.0.1", free_port())
        self.node_port, http = free_port(), free_port()
        self.url = f"http://127.0.0.1:{http}"
        script, settings = folder / "forward.lua", folder / "orthanc.json"
        script.write_text(FORWARD)
        content = {
            "DicomAet": "PACS",
            "DicomPort": self.peer.port,
            "HttpPort": http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": 1,
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "DicomModalities": {"node": ["LUNG_AI", "127.0.0.1", self.node_port]},
            "LuaScripts": [str(script)],
            "Plugins": [str(PLUGIN)] if PLUGIN.is_file() else [],
        }
        settings.write_text(json.dumps(content))
        log = stack.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(["Orthanc", str(settings)], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/system", timeout=5).ok
        except requests.ConnectionError:
            return False

    def modalities(self, study: str) -> dict[str, int]:
        """Returns how many instances it holds of a study, by modality; each is one series."""
        query = {"Level": "Series", "Expand": True, "Query": {"StudyInstanceUID": study}}
        found: list[Any] = requests.post(f"{self.url}/tools/find", json=query, timeout=5).json()
        counts = {one["MainDicomTags"]["Modality"]: len(one["Instances"]) for one in found}
        assert len(counts) == len(found)
        return counts


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with ExitStack() as stack:
        yield Orthanc(tmp_path / "orthanc", stack)


@pytest.fixture
def start(tmp_path: Path, weights: Path, orthanc: Orthanc) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts the node; it listens when its log says so."""
    log = tmp_path / "node" / "node.log"
    words = ["--send-to", str(orthanc.peer), "--port", orthanc.node_port, "--folder", tmp_path / "node"]
    words += ["--weights", weights, "--quiet-s", 1, "--device", "cpu", "--backend", "torch", "--sc", "--pdf"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with ExitStack() as stack:

        def run() -> subprocess.Popen[str]:
            starts = log.read_text().count("listens") if log.exists() else 0
            command = [sys.executable, "-m", "scripts", "dicom-node", *map(str, words)]
            node = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, text=True)
            stack.callback(node.wait)
            stack.callback(node.kill)
            wait_for(lambda: log.exists() and log.read_text().count("listens") > starts)
            return node

        yield run


def test_a_study_of_orthanc_is_done_once_though_the_node_is_killed(
    start: Callable[[], subprocess.Popen[str]], orthanc: Orthanc, tmp_path: Path
) -> None:
    study = uid("study")
    folder = tmp_path / "node" / "studies" / study
    node = start()
    store(orthanc.peer, write_study(tmp_path, slices=12))
    wait_for((folder / "results" / "manifest.json").exists)  # it is at work
    node.kill()
    assert node.wait() == -signal.SIGKILL
    assert orthanc.modalities(study) == {"CT": 12}
    node = start()
    wait_for((folder / "done.json").exists)
    pictures = len(list(folder.glob("results/*/infection_sc_*.dcm")))
    assert pictures > 1
    held = {"CT": 12, "SEG": 1, "SR": 1, "OT": pictures, "DOC": 1}
    assert orthanc.modalities(study) == held
    with pytest.raises(NotSentError, match="refused the call"):
        store(Peer("LUNG_AI", "127.0.0.1", orthanc.node_port), write_study(tmp_path, "other"), title="STRANGER")
    node.kill()
    node.wait()
    (folder / "done.json").unlink()  # as if it had been killed before its last step
    node = start()
    wait_for((folder / "done.json").exists)
    assert orthanc.modalities(study) == held
    node.terminate()
    assert node.wait() == 0
    assert {path.name for path in folder.parent.iterdir()} == {study}


@pytest.mark.skipif(not PLUGIN.is_file(), reason="no DICOMweb plugin (Debian: apt install orthanc-dicomweb)")
def test_a_study_of_orthanc_by_dicomweb(segment: Callable[..., int], orthanc: Orthanc, tmp_path: Path) -> None:
    pytest.importorskip("dicomweb_client", reason="the extra `pacs` is not installed")
    store(orthanc.peer, write_study(tmp_path))
    server = f"{orthanc.url}/dicom-web"
    assert segment(f"{server}/studies/{uid('study')}", tmp_path / "out", "--stow", server, "--sc", "--pdf") == 0
    pictures = len(list(tmp_path.glob("out/*/infection_sc_*.dcm")))
    assert pictures > 1
    assert orthanc.modalities(uid("study")) == {"CT": 4, "SEG": 1, "SR": 1, "OT": pictures, "DOC": 1}
