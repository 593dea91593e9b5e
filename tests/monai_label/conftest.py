"""The real MONAI Label server on loopback, in MONAI Label's own environment."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from scripts.inference import shipped
from scripts.monai_label.deployment import NAME
from tests.bundle_runner import heed_ctrl_c, run_command
from tests.conftest import OBLIQUE

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-monailabel/bin/python"
MODEL = f"{NAME}_demo"
FULL = f"{NAME}_full"
WITH_FULL = """
import sys
from pathlib import Path
from scripts.__main__ import main
from scripts.inference import shipped
shipped.MODELS = Path(sys.argv.pop(1))
main()
"""
"""`python -m scripts`, where the first argument stands for the folder of the shipped weights."""
FORK_FOR_EACH = """
import json, os, signal, sys, traceback
from pathlib import Path
from scripts.monai_label.serving.studies import *
from scripts.monai_label.serving.training import InfectionTrain
for line in sys.stdin:
    code, words, outputs = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(120)
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv[1:] = words
        failed = 0
        try:
            exec(code, globals())
        except BaseException:
            traceback.print_exc()
            failed = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failed)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Imports MONAI Label once, which takes seconds, and forks for what it is told to run."""
AS_TESTED = {"device": "cpu", "backend": "torch", "precision": "fp32"}
"""What `auto` is in the tests' own process."""


@dataclass
class Server:
    """A running server."""

    url: str
    deployment: Path
    process: subprocess.Popen[bytes]
    log: Path
    model: str = MODEL

    def infer(self, image: str = "", upload: Path | None = None, **params: object) -> requests.Response:
        files = {"file": (upload.name, upload.read_bytes())} if upload else None
        return requests.post(
            f"{self.url}/infer/{self.model}",
            params={"image": image, "output": "image"},
            data={"params": json.dumps({**AS_TESTED, **params})},
            files=files,
            timeout=600,
        )

    def post(self, path: str, body: object = None, **query: object) -> requests.Response:
        return requests.post(f"{self.url}/{path}", params=query, json=body, timeout=600)

    def save_label(self, image: str, label: Path) -> requests.Response:
        files = {"label": (label.name, label.read_bytes())}
        return requests.put(f"{self.url}/datastore/label", params={"image": image}, files=files, timeout=60)

    def training_status(self) -> dict[str, object]:
        """How the last training in the background ended."""
        for _ in range(1200):
            status: dict[str, object] = requests.get(f"{self.url}/train/", timeout=60).json()
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                break
            time.sleep(0.25)
        return status

    def alive(self) -> bool:
        return requests.get(f"{self.url}/info/", timeout=60).status_code == 200


def environment(folder: Path) -> dict[str, str]:
    """Everything that the server may write lies under the folder."""
    home = folder / "home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def tree(folder: Path) -> dict[str, float]:
    """Every file of the repository but those of environments, caches and git itself."""
    skipped = (".venv", ".venv-monailabel", ".git", "out", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache")
    found = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in skipped]  # environments hold tens of thousands
        paths = [Path(place, name) for name in files if not name.startswith(".coverage")]
        found.update({str(path): path.stat().st_mtime for path in paths})
    return found


def processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and "pytest" not in text:
            found.append(text)
    return found


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    make_checkpoint: Callable[..., Path],
    turned: Callable[..., nib.Nifti1Image],
) -> Iterator[Server]:
    """Assembles an app as `make monailabel` does and starts it with the command that it printed."""
    folder = tmp_path_factory.mktemp("label")
    before = tree(ROOT)
    words, deployment, url = assembled(folder, make_checkpoint)
    add_scans(deployment / "studies", turned)
    with launched(words, folder, deployment, url) as running:
        yield running
    assert processes_of(folder) == []
    assert tree(ROOT) == before
    assert not [path for path in (folder / "home" / "tmp").iterdir() if path.name.endswith((".nii.gz", ".nrrd"))]


def require_environment() -> None:
    if not (PYTHON.parents[1] / "ready").exists():
        pytest.skip("MONAI Label's environment is absent; `make .venv-monailabel/ready` builds it in a few minutes")


def assembled(folder: Path, make_checkpoint: Callable[..., Path]) -> tuple[list[str], Path, str]:
    """Assembles an app as `make monailabel` does; returns the command line that it prints,
    on a free port."""
    require_environment()
    deployment = folder / "deployment"
    weights = make_checkpoint(folder / "given" / "model.pt")
    make_checkpoint(weights.with_name("full.pt"), seed=1, base_width=8)
    command = [PYTHON, "-c", WITH_FULL, weights.parent, "monai_label", "assemble", weights, "--deployment", deployment]
    done = subprocess.run(command, cwd=ROOT, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words, url = start_words(done.stdout)
    return words, deployment, url


def assembled_here(folder: Path, make_checkpoint: Callable[..., Path]) -> tuple[list[str], Path, str]:
    """Assembles an app, of one model, in this process, which spares the imports of another one."""
    require_environment()
    weights, deployment = make_checkpoint(folder / "given" / "model.pt"), folder / "deployment"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "prefix", str(PYTHON.parents[1]))
        patch.setattr(sys, "executable", str(PYTHON))
        patch.setattr(shipped, "MODELS", weights.parent)
        done = run_command("monai_label", "assemble", weights, "--deployment", deployment)
    words, url = start_words(done.stdout)
    return words, deployment, url


def start_words(printed: str) -> tuple[list[str], str]:
    """The command line among what an assembly printed, on a free port; and its address."""
    (line,) = [line for line in printed.splitlines() if "start_server" in line]
    words = shlex.split(line)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    words[words.index("--port") + 1] = port = free_port()
    return words, f"http://127.0.0.1:{port}"


@contextmanager
def launched(
    words: Sequence[str | Path], folder: Path, deployment: Path, url: str, model: str = MODEL, **env: str
) -> Iterator[Server]:
    """A server while it runs, started by a command line; what it says goes to a log."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env={**environment(folder), **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
    running = Server(url, deployment, process, log, model)
    try:
        wait_until_up(running)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()


def wait_until_up(running: Server) -> None:
    for _ in range(600):
        if running.process.poll() is not None:
            break
        try:
            if running.alive():
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail(running.log.read_text()[-3000:])


def add_scans(studies: Path, turned: Callable[..., nib.Nifti1Image]) -> None:
    """A phantom stored with other axes under an oblique affine, and one slice as a volume."""
    scan = nib.load(studies / "phantom_001.nii.gz")
    oblique = turned(nib.Nifti1Image(np.asarray(scan.dataobj), OBLIQUE), "SRA")
    oblique.set_sform(oblique.affine, 2)
    oblique.set_qform(oblique.affine, 1)
    nib.save(oblique, studies / "turned.nii.gz")
    nib.save(scan.slicer[..., 7:8], studies / "one_slice.nii.gz")
    real = os.environ.get("LUNG_CT_DATA")
    if real:
        normal = Path(real) / "covid_ct_md" / "normal001_ct_256.nii.gz"
        (studies / normal.name).symlink_to(normal)


@pytest.fixture(scope="session")
def in_label_environment(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs lines with arguments in MONAI Label's environment, in a process of their own."""
    outputs = [tmp_path_factory.mktemp("output") / name for name in ("out", "err")]
    command, pipe = [PYTHON, "-c", FORK_FOR_EACH], subprocess.PIPE
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def forked(code: str, *words: object) -> subprocess.CompletedProcess[str]:
            request = [code, [str(word) for word in words], [str(path) for path in outputs]]
            print(json.dumps(request), file=process.stdin, flush=True)
            return subprocess.CompletedProcess(code, int(process.stdout.readline()), *map(Path.read_text, outputs))

        yield forked
        process.kill()  # an end of its own takes seconds, too


class Tools:
    """What tests need that start a server themselves."""

    assembled_here = staticmethod(assembled_here)
    launched = staticmethod(launched)
    free_port = staticmethod(free_port)


@pytest.fixture(scope="session")
def monai_label_tools() -> type[Tools]:
    """Starting a server."""
    return Tools
