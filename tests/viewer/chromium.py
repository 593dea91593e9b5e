"""A headless Chromium with WebGL in software, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image
from tornado.websocket import WebSocketClientConnection, websocket_connect

WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
CODES = {"PageUp": 33, "PageDown": 34, "Tab": 9}
PATIENCE_S = 240


class Tab:
    """One page; what the browser says of it is kept in `events`."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []

    async def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            async with asyncio.timeout(PATIENCE_S):
                message = json.loads(await self._socket.read_message())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    async def js(self, code: str) -> Any:
        """Evaluates JavaScript in the page."""
        done = await self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, code: str) -> None:
        """Waits for JavaScript to be true."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.js(code):
                await asyncio.sleep(0.2)

    async def press(self, key: str, shift: bool = False) -> None:
        """Presses a key and lets it go."""
        words = {"key": key, "windowsVirtualKeyCode": CODES.get(key, ord(key[0].upper())), "modifiers": 8 * shift}
        text = {"text": key} if len(key) == 1 else {}
        await self("Input.dispatchKeyEvent", type="keyDown", **words, **text)
        await self("Input.dispatchKeyEvent", type="keyUp", **words)

    async def picture(self) -> np.ndarray:
        """Takes a picture of the page, (height, width, 3)."""
        png = base64.b64decode((await self("Page.captureScreenshot"))["data"])
        return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)

    def complaints(self) -> list[str]:
        """Returns what the console holds: errors, warnings, refused sources."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def asked_for(self) -> set[str]:
        """Returns the addresses that the page asked for."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return {one["request"]["url"] for one in sent}


@asynccontextmanager
async def page(program: str, address: str, profile: Path, width: int, height: int) -> AsyncIterator[Tab]:
    """Opens an address in a browser of its own."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    command = [program, "--headless=new", *WEBGL, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    with (profile / "said").open("w") as said:
        process = subprocess.Popen([*command, "about:blank"], stderr=said)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := re.search(r"listening on ws://(\S+?)/", (profile / "said").read_text())):
                assert process.poll() is None, (profile / "said").read_text()
                await asyncio.sleep(0.2)
        with urlopen(f"http://{found[1]}/json", timeout=PATIENCE_S) as answer:
            (target,) = (one for one in json.load(answer) if one["type"] == "page")
        tab = Tab(await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=1 << 28))
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab(f"{domain}.enable")
        await tab("Emulation.setDeviceMetricsOverride", **size)
        await tab("Page.navigate", url=address)
        yield tab
    finally:
        process.kill()
        process.wait()
