from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scripts.monai_label.web_guard import WebGuard


def ask(guard_settings: dict[str, Any], kind: str = "http", **headers: str) -> list[dict[str, Any]]:
    """What a client hears; "app" where the application was reached."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"type": "app"})

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": "POST", "headers": pairs}
    asyncio.run(WebGuard(app, **guard_settings)(scope, None, send))  # type: ignore[arg-type]
    return sent


OHIF = {"origins": ["https://Viewer.example.org/"], "hosts": ["ct.example.org"]}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8000"},
        {"host": "[::1]:8000", "origin": "http://[::1]:8000"},
        {"host": "192.168.3.4:8000"},
        {"host": "LOCALHOST:8000", "origin": "http://localhost:8000"},
        {"host": "ct.example.org", "origin": "https://ct.example.org"},
        {"host": "127.0.0.1:8000", "origin": "https://viewer.example.org", "sec_fetch_site": "cross-site"},
    ],
)
def test_the_servers_pages_and_named_ones_reach_the_application(headers: dict[str, str]) -> None:
    assert ask(OHIF, **headers) == [{"type": "app"}]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8000"},
        {"host": "ct.example.org.evil.example"},
        {"host": "127.0.0.1:8000", "origin": "https://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8001"},
        {"host": "127.0.0.1:8000", "origin": "null"},
        {"host": "127.0.0.1:8000", "origin": "file://127.0.0.1:8000"},
        {"host": "127.0.0.1:8000", "origin": "http://viewer.example.org"},
        {"host": "127.0.0.1:8000", "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
        {"host": "[", "origin": "http://["},
    ],
)
def test_foreign_pages_do_not(headers: dict[str, str]) -> None:
    start, body = ask(OHIF, **headers)
    assert start["status"] == 403
    assert b"expected" in body["body"]
    [closed] = ask(OHIF, kind="websocket", **headers) if "sec_fetch_mode" not in headers else [{"code": 1008}]
    assert closed["code"] == 1008


def test_what_is_no_request_passes() -> None:
    assert ask(OHIF, kind="lifespan") == [{"type": "app"}]
