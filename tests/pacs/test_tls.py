"""Calls in and out by TLS, with files of one's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.pacs.peers import Peer, Tls
from scripts.pacs.queue import StudyQueue
from scripts.pacs.receiving import receiving
from scripts.pacs.sending import NotSentError, send
from tests.pacs.peers import wait_for, write_study
from tests.scan_fixtures import uid


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """A certificate for localhost that is its own authority."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl on the PATH, which makes the certificate")
    key, certificate = tmp_path / "node.key", tmp_path / "node.pem"
    words = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *words]
    subprocess.run(command, check=True, capture_output=True)
    return Tls(certificate, key, certificate)


def test_only_tls_with_a_known_certificate_is_taken(tls: Tls, tmp_path: Path) -> None:
    queue, files = StudyQueue(tmp_path / "node"), write_study(tmp_path, slices=2)
    with receiving(queue, "LUNG_AI", "127.0.0.1", 0, ["PACS"], tls) as port:
        node = Peer("LUNG_AI", "localhost", port)
        with pytest.raises(NotSentError):
            send(files, node, "PACS")
        assert queue.waiting() == []
        send(files, node, "PACS", tls)
    assert queue.waiting() == [uid("study")]


def test_a_caller_without_a_word_holds_up_no_other(tls: Tls, tmp_path: Path) -> None:
    queue, files = StudyQueue(tmp_path / "node"), write_study(tmp_path, slices=2)
    with receiving(queue, "LUNG_AI", "127.0.0.1", 0, ["PACS"], tls) as port:
        silent = socket.create_connection(("127.0.0.1", port))
        send(files, Peer("LUNG_AI", "localhost", port), "PACS", tls)
        silent.close()
        wait_for(lambda: not any("AcceptorThread" in thread.name for thread in threading.enumerate()))
    assert queue.waiting() == [uid("study")]


def test_an_archive_that_shakes_no_hands_does_not_answer(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.pacs.sending.SILENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotSentError, match="does not answer"):
        send(write_study(tmp_path, slices=1), Peer("PACS", "localhost", silent.getsockname()[1]), "LUNG_AI", tls)


def test_files_that_are_no_certificates_are_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "node.pem").write_text("nothing")
    with pytest.raises(UserError, match=r"node\.pem.*expected: PEM files"):
        Tls(tmp_path / "node.pem", tmp_path / "node.pem").server()
