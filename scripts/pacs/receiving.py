"""The side of the node that is called: C-ECHO, and C-STORE of CT images into the queue."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from ..errors import UserError
from ..io.dicom.files import UNREADABLE, read_header
from ..io.dicom.header import CT_CLASSES, get_text
from .peers import Tls, limit_silence
from .queue import StudyQueue

logger = logging.getLogger(__name__)

SYNTAXES: list[UID] = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    RLELossless,
]
"""What the reader of `segment` decodes."""
ASSOCIATIONS = 4
"""Calls at one time; each holds the image that it sends in memory."""
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000  # PS3.4 table B.2-1


@contextmanager
def receiving(
    queue: StudyQueue,
    title: str,
    host: str,
    port: int,
    callers: Sequence[str],
    tls: Tls | None = None,
) -> Iterator[int]:
    """Take calls in threads of their own while the block runs.

    Args:
        queue: where images go.
        title: the node's own AE title; who calls another one is refused.
        host: address of this machine to listen on.
        port: the port; 0 takes a free one.
        callers: the AE titles that may call.
        tls: files for TLS; None: no TLS.

    Yields:
        The port.

    Raises:
        UserError: if address or port cannot be had.
    """
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import Verification

    entity = AE(title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(callers)
    entity.maximum_associations = ASSOCIATIONS
    entity.add_supported_context(Verification)
    for sop_class in CT_CLASSES:
        entity.add_supported_context(sop_class, SYNTAXES)
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, limit_silence),
        (evt.EVT_C_STORE, _store, [queue]),
        (evt.EVT_REJECTED, _log_rejection),
    ]
    context = tls.server() if tls else None
    try:
        server = entity.start_server((host, port), block=False, evt_handlers=handlers, ssl_context=context)
    except OSError as error:
        found = f"{host}:{port}: cannot listen there ({error})"
        raise UserError(f"{found}; expected: a free port of this machine") from None
    try:
        yield server.server_address[1]
    finally:
        entity.shutdown()


def _store(event: Any, queue: StudyQueue) -> int:
    """Answer C-STORE; an image is on disk before it is acknowledged."""
    instance = str(event.request.AffectedSOPInstanceUID)
    try:
        content = event.encoded_dataset()
        study = get_text(read_header(BytesIO(content), ["StudyInstanceUID"]), "StudyInstanceUID")
        queue.store(study, instance, content)
    except OSError as error:
        logger.error(f"image {instance!r} was refused: {error}")
        return _OUT_OF_RESOURCES
    except UNREADABLE as error:
        logger.error(f"image {instance!r} was refused: {error}")
        return _CANNOT_UNDERSTAND
    return _SUCCESS


def _log_rejection(event: Any) -> None:
    asked = event.assoc.requestor.primitive
    logger.warning(f"a call from {asked.calling_ae_title!r} to {asked.called_ae_title!r} was refused")
