"""Who talks to the node: application entities, and the files of a TLS connection."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

UID = r"\d[\d.]{0,63}"
"""Pattern of the UIDs that peers send, so that no path leads out of a folder."""
_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # ISO 646 without control characters and backslash (PS3.5 table 6.2-1)
_PEER = re.compile(r"(?P<title>[^@]+)@(?P<host>.+):(?P<port>\d+)")
_HIGHEST_PORT = 65535
SILENCE_S = 30.0
"""How long a peer may stop in the middle of a message, or of a TLS handshake."""


@dataclass(frozen=True)
class Peer:
    """An application entity on the network."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


def parse_peer(text: str) -> Peer:
    """Read an application entity as AET@HOST:PORT; UserError if it is none.

    >>> parse_peer("PACS@10.0.0.5:4242")
    Peer(title='PACS', host='10.0.0.5', port=4242)
    """
    match = _PEER.fullmatch(text)
    if not match or not 0 < int(match["port"]) <= _HIGHEST_PORT:
        raise UserError(f"{text!r} is no application entity; expected: AET@HOST:PORT, such as PACS@10.0.0.5:4242")
    return Peer(check_title(match["title"]), match["host"].strip("[]"), int(match["port"]))


def check_title(text: str) -> str:
    """Return an application entity title without spaces around it; UserError if it is none."""
    title = text.strip()
    if not _TITLE.fullmatch(title):
        raise UserError(f"{text!r} is no AE title; expected: 1 to 16 characters of ASCII, no backslash")
    return title


def limit_silence(event: Any) -> None:
    """End a call in whose middle the peer stops; for pynetdicom's EVT_CONN_OPEN.

    Its own timeouts count between messages only: a peer that loses the network would hold a call,
    or the node that sends to it, for ever.
    """
    event.assoc.dul.socket.socket.settimeout(SILENCE_S)


class _ServerContext(ssl.SSLContext):
    """Shakes hands in the thread of a call, where a silent caller holds up no other."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **{**kwargs, "do_handshake_on_connect": False})


@dataclass(frozen=True)
class Tls:
    """PEM files for TLS, of both directions.

    Attributes:
        certificate: the node's own, with the chain.
        key: its private key.
        authorities: who signs the peers' certificates; where given, a caller must present one.
            None: the system's, and callers without certificate are taken.
    """

    certificate: Path
    key: Path
    authorities: Path | None = None

    def server(self) -> ssl.SSLContext:
        """Return the settings of the side that is called."""
        context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        if self.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self) -> ssl.SSLContext:
        """Return the settings of the side that calls, which checks the name of the host."""
        context = ssl.create_default_context()
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authorities is not None:
                context.load_verify_locations(self.authorities)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(one) for one in (self.certificate, self.key, self.authorities) if one)
            raise UserError(f"{files}: no TLS with these ({error}); expected: PEM files that fit each other") from None
