"""Sending derived objects to an archive by C-STORE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..io.dicom.files import read_header
from .peers import SILENCE_S, Peer, Tls, limit_silence


class NotSentError(Exception):
    """An archive that does not answer, or does not take an object; later it may."""


def send(files: Sequence[Path], peer: Peer, title: str, tls: Tls | None = None) -> None:
    """Send DICOM files in one association; an archive replaces those that it has already.

    Args:
        files: the files.
        peer: who takes them.
        title: the own AE title.
        tls: files for TLS; None: no TLS.

    Raises:
        NotSentError: says what the archive did with the first file that it did not take.
    """
    from pynetdicom import AE, evt

    entity = AE(title)
    entity.connection_timeout = SILENCE_S
    for sop_class, syntax in sorted({_kind(file) for file in files}):
        entity.add_requested_context(sop_class, syntax)
    secured = (tls.client(), peer.host) if tls else None
    limits: list[Any] = [(evt.EVT_CONN_OPEN, limit_silence)]
    association = entity.associate(peer.host, peer.port, ae_title=peer.title, evt_handlers=limits, tls_args=secured)
    if not association.is_established:
        why = "refused the call" if association.is_rejected else "does not answer"
        raise NotSentError(f"{peer} {why}")
    try:
        for file in files:
            _send(association, file, peer)
    finally:
        association.release()


def _kind(file: Path) -> tuple[str, str]:
    with file.open("rb") as stream:
        meta = read_header(stream, ["SOPClassUID"]).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _send(association: Any, file: Path, peer: Peer) -> None:
    from pynetdicom.status import code_to_category

    try:
        answer = association.send_c_store(file)
    except (ValueError, RuntimeError) as error:  # a class that it does not take; a call that it ended
        raise NotSentError(f"{peer} did not take {file.name}: {error}") from None
    if "Status" not in answer:
        raise NotSentError(f"{peer} gave no answer to {file.name}")
    if code_to_category(answer.Status) not in ("Success", "Warning"):
        raise NotSentError(f"{peer} did not take {file.name}: status 0x{answer.Status:04X}")
