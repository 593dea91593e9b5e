"""Refuse web pages of other sites: only the server's own and named ones may talk to it.

A browser sends a page's request to any address, also to one that only this machine reaches.
`Origin` says which page asks, and pages of other sites are refused. `Host` says by which name the
server was reached. A name of somebody else's that resolves to this machine (DNS rebinding) is
refused, because such a page would count as the server's own. Programs such as 3D Slicer and curl
send no `Origin` and are not concerned.
"""

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ORIGINS_SETTING = "MONAI_LABEL_CORS_ORIGINS"
HOSTS_SETTING = "--conf allowed_hosts"
_SAFE = ("none", "same-origin")
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


def normal_origin(origin: str) -> str:
    """Return an origin as browsers write it.

    >>> normal_origin("HTTPS://Viewer.example.org/")
    'https://viewer.example.org'
    """
    parts = urlsplit(origin.strip().lower())
    return f"{parts.scheme}://{parts.netloc}"


class WebGuard:
    """ASGI middleware that answers requests of foreign web pages with 403.

    Args:
        app: what answers the others.
        origins: other web pages that may ask, such as `https://viewer.example.org`.
        hosts: other names by which the server may be reached; numeric addresses and this machine's
            name always may.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str] = (), hosts: Collection[str] = ()) -> None:
        self.app = app
        self.origins = frozenset(map(normal_origin, origins))
        self.hosts = {"localhost", socket.gethostname().lower()} | {name.strip().lower() for name in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a foreign page here and leave everything else to the application."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        refusal = self.refusal(scope)
        if refusal is None:
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal[:120]})
        await JSONResponse({"detail": refusal}, 403)(scope, receive, send)

    def refusal(self, scope: Scope) -> str | None:
        """Return why a request is refused, in one line, or None."""
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        if len(host) != 1 or not self._known_host(host[0]):
            return (
                f"Host is {_some(host)}; expected: a numeric address, {', '.join(sorted(self.hosts))}, "
                f"or a name given with {HOSTS_SETTING}"
            )
        origin = headers.getlist("origin")
        if origin:
            if len(origin) == 1 and self._known_origin(origin[0], host[0]):
                return None
            return f"Origin is {_some(origin)}; expected: the server's own, or one that {ORIGINS_SETTING} names"
        if _foreign_page(headers, str(scope.get("method", "GET"))):
            return "the request comes from a page of another site; expected: the server's own pages, or a program"
        return None

    def _known_host(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _known_origin(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin.lower())
        except ValueError:
            return False
        own = parts.scheme in ("http", "https") and parts.netloc == host.lower()
        return own or normal_origin(origin) in self.origins


def _foreign_page(headers: Headers, method: str) -> bool:
    """Whether a browser says that another site's page asks, unless a person follows a link."""
    site = headers.get("sec-fetch-site", "none")
    follows = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    return site not in _SAFE and not follows


def _some(values: list[str]) -> str:
    return ", ".join(repr(value[:100]) for value in values[:3]) or "absent"
