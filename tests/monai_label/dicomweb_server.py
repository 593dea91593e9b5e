"""A small DICOMweb server over a dictionary of data sets:
what MONAI Label asks of one (PS3.18 section 10)."""

from __future__ import annotations

import json
import re
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

BOUNDARY = "part"


class DicomWeb:
    """The server while it runs.

    Attributes:
        instances: what it holds, by SOPInstanceUID.
        url: where it is.
        refuses: whether it refuses to store anything.
        requests: method and path of each request.
        tokens: values of the header Authorization; None where it is absent.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Dataset] = {}
        self.refuses = False
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"held": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/dicom-web"

    def __enter__(self) -> DicomWeb:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, *datasets: Dataset) -> None:
        """Stores instances."""
        self.instances.update({str(one.SOPInstanceUID): one for one in datasets})

    def select(self, **wanted: str) -> list[Dataset]:
        """Returns the instances whose attributes have these values."""
        everything = list(self.instances.values())
        return [one for one in everything if all(str(one.get(key, "")) == value for key, value in wanted.items())]

    def segmentations(self, **wanted: str) -> list[Dataset]:
        """Returns the SEG that are stored, the oldest first."""
        return self.select(Modality="SEG", **wanted)


class _Handler(BaseHTTPRequestHandler):
    held: DicomWeb

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.held.requests.append(f"GET {url.path}")
        self.held.tokens.add(self.headers["Authorization"])
        path = url.path.removeprefix("/dicom-web")
        if path == "/series":
            return self._series(dict(parse_qsl(url.query)))
        if search := re.fullmatch(r"/studies/([^/]+)/series", path):
            return self._series({**dict(parse_qsl(url.query)), "StudyInstanceUID": search[1]})
        uids = re.fullmatch(r"/studies/([^/]+)/series/([^/]+)(?:/instances/([^/]+))?(/metadata)?", path)
        if not uids:
            return self._answer(404, "application/json", b"{}")
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        found = self.held.select(**{key: uid for key, uid in zip(keys, uids.groups()[:3], strict=True) if uid})
        if not found:
            return self._answer(404, "application/json", b"{}")
        if uids[4]:
            return self._json([_without_pixels(one) for one in found])
        parts = b"".join(
            f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + _file(one) + b"\r\n" for one in found
        )
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return self._answer(200, kind, parts + f"--{BOUNDARY}--".encode())

    def do_POST(self) -> None:
        self.held.requests.append(f"POST {self.path}")
        self.held.tokens.add(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.held.refuses:
            return self._answer(409, "application/dicom+json", b"{}")
        message = BytesParser().parsebytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
        answer = Dataset()
        answer.ReferencedSOPSequence = []
        for part in message.get_payload():
            one = dcmread(BytesIO(part.get_payload(decode=True)))
            self.held.add(one)
            stored = Dataset()
            stored.ReferencedSOPClassUID, stored.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
            place = f"studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
            stored.RetrieveURL = f"{self.held.url}/{place}"
            answer.ReferencedSOPSequence.append(stored)
        return self._json(answer.to_json_dict())

    def _series(self, query: dict[str, str]) -> None:
        first: dict[str, Dataset] = {}
        for one in self.held.select(**query):
            first.setdefault(str(one.SeriesInstanceUID), one)
        keywords = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientID", "StudyDate", "StudyTime")
        found = []
        for one in first.values():
            row = Dataset()
            for keyword in keywords:
                setattr(row, keyword, one.get(keyword))
            found.append(row.to_json_dict())
        self._json(found)

    def _json(self, content: Any) -> None:
        self._answer(200, "application/dicom+json", json.dumps(content).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _without_pixels(one: Dataset) -> Any:
    return Dataset({tag: element for tag, element in one.items() if one[tag].keyword != "PixelData"}).to_json_dict()


def _file(one: Dataset) -> bytes:
    with BytesIO() as stream:
        one.save_as(stream, enforce_file_format=True)
        return stream.getvalue()


def copied(seg: Dataset) -> Dataset:
    """Returns another SEG with the same content, in a series of its own."""
    twin = dcmread(BytesIO(_file(seg)))
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    twin.SeriesInstanceUID = generate_uid()
    return twin
