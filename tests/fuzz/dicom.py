"""DICOM to change: files, what calls of a node send, what DICOMweb servers answer."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from scripts.errors import UserError
from scripts.pacs.dicomweb import retrieve
from scripts.pacs.queue import StudyQueue
from scripts.pacs.receiving import receiving
from tests.fuzz import mutations
from tests.fuzz.scans import read_scans, values
from tests.scan_fixtures import make_slice, save, uid

BY_PYDICOM = {
    "plain": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG-LS near": JPEGLSNearLossless,
}
BY_GDCM = ("JPEG2000", "JPEG")  # GDCM's names
PIXELS = b"\xe0\x7f\x10\x00O"  # tag and first letter of the type
META = 144  # bytes up to the end of the meta header's length
STATUS = (0x0000, 0xA700, 0xC000)  # success, out of resources, cannot understand (PS3.4 table B.2-1)
BOUNDARY = "part"
NO_BREAKS = dict.fromkeys(map(ord, "\r\n"), " ")
STUDY = f"studies/{uid('study')}"

_config.STORE_SEND_CHUNKED_DATASET = True  # a file's bytes go out as they are


def make(seeds: Path) -> None:
    for name in (*BY_PYDICOM, *BY_GDCM):
        for k in range(3):
            _write_slice(seeds / name / f"{k}.dcm", k, name)


def _write_slice(path: Path, k: int, name: str) -> None:
    stored = np.ascontiguousarray(values(k)[..., k].T + 1024).astype(np.uint16)
    save(make_slice(stored, (0.0, 0.0, 2.5 * k), k), path, BY_PYDICOM.get(name, ExplicitVRLittleEndian))
    if name in BY_PYDICOM:
        return
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetCompressor(name)
    writer.UseCompressionOn()
    writer.SetFileName(str(path.with_name("other.dcm")))
    writer.Execute(sitk.GetImageFromArray(stored))
    ds, other = dcmread(path), dcmread(path.with_name("other.dcm"))
    path.with_name("other.dcm").unlink()
    ds.PixelData, ds.file_meta.TransferSyntaxUID = other.PixelData, other.file_meta.TransferSyntaxUID
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)


def change(seeds: Path, place: Path, rng: Random) -> None:
    source = rng.choice(sorted(seeds.iterdir()))
    shutil.copytree(source, place / "series")
    for path in rng.sample(sorted((place / "series").iterdir()), rng.choice((1, 1, 3))):
        data = path.read_bytes()
        try:
            data = _changed_elements(dcmread(path), rng) if rng.random() < 0.6 else _changed_bytes(data, rng)
        except Exception:  # pydicom does not write everything
            data = mutations.bytes_(data, rng)
        path.write_bytes(data)


def _changed_bytes(data: bytes, rng: Random) -> bytes:
    """Changes bytes near the start, or of the pixels, where the codecs read."""
    pixels = data.rfind(PIXELS)
    if pixels < 0 or rng.random() < 0.5:
        return mutations.bytes_(data, rng)
    return data[:pixels] + mutations.bytes_(data[pixels:], rng, 200)


def _changed_elements(ds: Dataset, rng: Random) -> bytes:
    for _ in range(rng.choice((1, 2, 4))):
        tags = [element.tag for element in ds]
        tag = rng.choice(tags[:-1] if rng.random() < 0.9 else tags)  # the last are the pixels
        if rng.random() < 0.2:
            del ds[tag]
            continue
        element = ds[tag]
        junk = rng.choice((rng.choice(mutations.JUNK).encode(), rng.randbytes(rng.choice((1, 2, 4, 8, 300)))))
        junk = struct_number(rng) if element.VR in ("US", "SS", "UL") else junk
        vr = element.VR if rng.random() < 0.8 else rng.choice(("US", "DS", "SQ", "UN", "FD", "AT", "OW"))
        ds[tag] = RawDataElement(element.tag, vr, len(junk), junk, 0, False, True)
    content = io.BytesIO()
    ds.save_as(content)
    return content.getvalue()


def struct_number(rng: Random) -> bytes:
    """Two bytes of a whole number, mostly at a bound."""
    return rng.choice((0, 1, 2, 8, 15, 16, 17, 32, 20, 24, 21, 255, 32767, 32768, 65535)).to_bytes(2, "little")


def change_sent(seeds: Path, place: Path, rng: Random) -> None:
    """Writes a file with a changed data set and its own meta header, with which a call begins."""
    source = rng.choice(sorted(seeds.rglob("*.dcm")))
    data = source.read_bytes()
    start = META + int.from_bytes(data[META - 4 : META], "little")
    changed = data[start:]
    if rng.random() < 0.6:
        with contextlib.suppress(Exception):  # pydicom does not write everything
            whole = _changed_elements(dcmread(source), rng)
            changed = whole[META + int.from_bytes(whole[META - 4 : META], "little") :]
    if changed == data[start:]:
        changed = mutations.bytes_(changed, rng)
    (place / "sent.dcm").write_bytes(data[:start] + changed)


def send_to_node(place: Path) -> None:
    """Sends a file to a node as it is; reads what the node kept."""
    with tempfile.TemporaryDirectory() as folder:
        queue = StudyQueue(Path(folder))
        with receiving(queue, "LUNG_AI", "127.0.0.1", 0, ["PACS"]) as port:
            status = _sent(place / "sent.dcm", port)
        assert status in STATUS, f"status 0x{status:04X}"
        kept = queue.waiting()
        assert len(kept) == (status == 0), kept
        if status:
            raise UserError("refused by the node")
        read_scans(queue.images(kept[0]))


def _sent(file: Path, port: int) -> int:
    """The status of C-STORE; that of C-ECHO in a call of its own behind it must be 0."""
    status = _called(
        port, CTImageStorage, read_file_meta_info(file).TransferSyntaxUID, lambda call: call.send_c_store(file)
    )
    assert _called(port, Verification, None, lambda call: call.send_c_echo()) == 0, "no echo"
    return status


def _called(port: int, sop_class: str, syntax: str | None, ask: Callable[[Association], Dataset]) -> int:
    """Ask one thing in a call: pynetdicom may lose the answer to a second that follows at once."""
    entity = AE("PACS")
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="LUNG_AI")
    try:
        return int(ask(association).Status)
    finally:
        association.release()


def make_answers(seeds: Path) -> None:
    """Writes what a server answers to a search for series and to their retrieval."""
    row = {"0020000E": {"vr": "UI", "Value": [uid("a")]}, "00080060": {"vr": "CS", "Value": ["CT"]}}
    (seeds / "series").write_text(json.dumps([row]))
    make(seeds / "dicom")
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = b"".join(head + file.read_bytes() + b"\r\n" for file in sorted((seeds / "dicom" / "plain").iterdir()))
    (seeds / "images").write_bytes(parts + f"--{BOUNDARY}--".encode())
    shutil.rmtree(seeds / "dicom")


def change_answer(seeds: Path, place: Path, rng: Random) -> None:
    """Changes the list of series, the parts with images, or the head of an answer."""
    series, images = (seeds / "series").read_bytes(), (seeds / "images").read_bytes()
    kind = rng.randrange(3)
    if kind == 0:
        series = mutations.as_json(series, rng)
    elif kind == 1:
        images = mutations.bytes_(images, rng, rng.choice((200, 1500, len(images))))
    heads = {
        "series": [200, "application/dicom+json", len(series)],
        "images": [200, f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', len(images)],
    }
    if kind == 2:
        head = heads[rng.choice([*heads])]
        head[0] = rng.choice((200, 204, 206, 301, 400, 401, 404, 500))
        head[1] = mutations.text(str(head[1]).encode(), rng).decode("latin-1").translate(NO_BREAKS)
        head[2] = rng.choice((head[2], 0, -1, "x", head[2] // 2, head[2] + 100, 2**62))
    for name, content in (("series", series), ("images", images), ("heads", json.dumps(heads).encode())):
        (place / name).write_bytes(content)


def retrieve_study(place: Path) -> None:
    """Retrieves a study from a server that gives these answers; no part may stay on the disk."""
    with answering(place) as address, tempfile.TemporaryDirectory() as folder, patch("retrying.time.sleep"):
        try:
            assert [*retrieve(f"{address}/{STUDY}", Path(folder)).glob("*/*.dcm")]
        except UserError:
            assert not [path for path in Path(folder).rglob("*") if path.is_file()], "part of a series"
            raise


@contextmanager
def answering(place: Path) -> Iterator[str]:
    """A server on loopback that answers what lies in a folder; gives its address."""
    heads = json.loads((place / "heads").read_text())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = "series" if self.path.partition("?")[0].endswith("/series") else "images"
            status, kind, length = heads[name]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", length)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has heard enough
                self.wfile.write((place / name).read_bytes())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
