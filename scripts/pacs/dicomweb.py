"""DICOMweb: a study's CT series as input (QIDO-RS, WADO-RS), results stored (STOW-RS)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError
from ..files import replace_folder, unfinished_folder
from ..io.output_names import DOWNLOADS, derived_objects
from ..pipeline.batch import Entries
from ..pipeline.job import DONE
from .peers import UID

TOKEN = "LUNG_INFECTION_CT_DICOMWEB_TOKEN"
"""Environment variable with the bearer token that servers get, never part of a command line."""
_PLACE = re.compile(rf"(?P<server>https?://.+)/studies/(?P<study>{UID})(?:/series/(?P<series>{UID}))?/?")


def is_address(text: str | Path) -> bool:
    """Whether an input is an address on the web, not a path."""
    return str(text).lower().startswith(("http://", "https://"))


def check_server(server: str) -> None:
    """Refuse what cannot be a DICOMweb server, before any work; UserError."""
    import dicomweb_client  # noqa: F401 - of an extra, which may be missing

    try:
        host = urlsplit(server).hostname if is_address(server) else None
    except ValueError:
        host = None
    if not host:
        raise UserError(f"{server}: no address of a server; expected: http://HOST/... or https://HOST/...")


def retrieve(address: str, output: Path) -> Path:
    """Retrieve the CT series of a study, or one series, as files.

    Args:
        address: SERVER/studies/UID or SERVER/studies/UID/series/UID.
        output: the folder of the run; a series in its `downloads` is not retrieved again.

    Returns:
        The folder of the study or the series.

    Raises:
        UserError: if the address is none, or the server does not hand the images out.
    """
    match = _PLACE.fullmatch(address)
    if not match:
        raise UserError(f"{address}: expected: https://HOST/.../studies/UID, with /series/UID or without")
    study, folder = match["study"], output / DOWNLOADS / match["study"]
    with _connected(match["server"], address) as client:
        series = [match["series"]] if match["series"] else _ct_series(client, study)
        if not series:
            raise UserError(f"{address}: no CT series; expected: a study with CT images")
        for uid in series:
            _retrieve_series(client, study, uid, folder / uid)
    return folder / match["series"] if match["series"] else folder


def stored(entries: Entries, output: Path, server: str) -> Entries:
    """Store the DICOM results of cases as they end; a case whose results are not stored failed.

    Args:
        entries: cases and their manifest entries, see `record`.
        output: the folder of the run.
        server: address of the DICOMweb server, what comes before /studies.
    """
    with closing(entries):
        for case, entry in entries:
            if entry["status"] in DONE:
                try:
                    store(output / case.folder, server)
                except UserError as error:
                    entry = entry | {"status": "failed", "message": f"{case.source}: segmented, not stored: {error}"}
            yield case, entry


def store(folder: Path, server: str) -> None:
    """Store a case's DICOM results; a server replaces those that it has already.

    Raises:
        UserError: if there are none, or the server does not take them.
    """
    from pydicom import dcmread

    files = derived_objects(folder)
    if not files:
        raise UserError(f"{folder}: no DICOM results; expected with --stow: DICOM input with complete headers")
    with _connected(server, server) as client:
        answer = client.store_instances([dcmread(file) for file in files])
        failed = answer.get("FailedSOPSequence")
        reasons = ", ".join(sorted({f"0x{one.get('FailureReason', 0):04X}" for one in failed or ()}))
    if failed:
        raise UserError(
            f"{server}: {len(failed)} of {len(files)} objects refused ({reasons}); expected: a server with room"
        )


@contextmanager
def _connected(server: str, address: str) -> Iterator[Any]:
    """Yield a client; what the network refuses and what no server should say is a mistake."""
    from dicomweb_client.api import DICOMwebClient
    from requests import RequestException

    token = os.environ.get(TOKEN, "").strip()
    try:
        client = DICOMwebClient(server, headers={"Authorization": f"Bearer {token}"} if token else None)
        client.set_http_retry_params(max_attempts=3)  # six seconds; its own five take half a minute
        yield client
    except RequestException as error:
        expected = f"a DICOMweb server that you may use; a token for it in {TOKEN}"
        raise UserError(f"{address}: {error}; expected: {expected}") from None
    except (UserError, OSError):
        raise
    except Exception as error:  # of the parsers of JSON, multipart and DICOM
        found = f"an answer that cannot be read ({type(error).__name__})"  # its text may repeat a patient's data
        raise UserError(f"{address}: {found}; expected: what DICOMweb servers answer") from error


def _ct_series(client: Any, study: str) -> list[str]:
    found = client.search_for_series(study, search_filters={"Modality": "CT"})
    return [_uid(one, "0020000E") for one in found]


def _retrieve_series(client: Any, study: str, series: str, folder: Path) -> None:
    """Write the images of a series, one in memory at a time, as they are stored on the server."""
    if folder.is_dir():
        return
    with unfinished_folder(folder.parent) as temporary:
        images = temporary / "images"
        images.mkdir()
        for number, one in enumerate(client.iter_series(study, series, media_types=(("application/dicom", "*"),))):
            if one.get("SeriesInstanceUID") != series:
                raise UserError(f"series {series}: the server sent something else; expected: its images")
            one.save_as(images / f"{number:05d}.dcm", enforce_file_format=True)
        if not any(images.iterdir()):
            raise UserError(f"series {series}: the server sent no image; expected: all that it holds")
        replace_folder(images, folder)


def _uid(row: Any, tag: str) -> str:
    uid = str(row[tag]["Value"][0])
    if not re.fullmatch(UID, uid):
        raise UserError(f"{uid!r} is no UID; expected: a DICOMweb server")
    return uid
