"""What the viewer serves: a fixed list of addresses, each with what makes its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from threading import Lock

from ..io.volume import Scan
from ..messages import printable
from .pages import case_page, list_page, report_page, style_sheet
from .results import CaseResult, read_volumes
from .volumes import nifti_header, nifti_parts, nifti_size

ASSETS = Path(__file__).with_name("assets")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the pages: nothing is fetched from elsewhere. NiiVue holds its font as
data: addresses."""
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""That of report.html, which runs nothing and brings its style."""
KEPT_SCANS = 2  # a case and its prior


@dataclass(frozen=True)
class Answer:
    """What a request gets.

    Attributes:
        kind: the Content-Type.
        length: number of bytes.
        parts: the bytes, piece by piece.
        policy: the Content-Security-Policy.
        status: of HTTP.
    """

    kind: str
    length: int
    parts: Iterable[bytes]
    policy: str = PAGE_POLICY
    status: HTTPStatus = HTTPStatus.OK


Site = Mapping[str, Callable[[], Answer]]
"""From paths below the token to what makes the answer; there are no others."""


def build_site(cases: Sequence[CaseResult], prior: CaseResult | None = None) -> Site:
    """List all addresses: "" is the list of the cases, "1/" the first of them, and so on.

    Making an answer raises UserError where the scan or a result cannot be read.

    Args:
        cases: what is shown; a list comes first where there are several.
        prior: an earlier case, shown beside each.
    """
    read, lock = lru_cache(KEPT_SCANS)(read_volumes), Lock()

    def volume(case: CaseResult, which: int) -> Answer:
        with lock:  # the page asks for scan and mask at the same time
            scan = read(case)[which]
        return _volume(scan)

    site: dict[str, Callable[[], Answer]] = {"": partial(_page, partial(list_page, cases))}
    site |= {f"assets/{name}": partial(_script, name) for name in ("niivue.js", "viewer.js")}
    site["assets/viewer.css"] = lambda: text(style_sheet(), "text/css")
    shown = {str(number): case for number, case in enumerate(cases, start=1)}
    for place, case in (shown | ({"prior": prior} if prior else {})).items():
        site[f"{place}/scan.nii"] = partial(volume, case, 0)
        site[f"{place}/mask.nii"] = partial(volume, case, 1)
        site[f"{place}/report.html"] = partial(_report, case, linked=place in shown)
    for place, case in shown.items():
        site[f"{place}/"] = partial(_page, partial(case_page, case, prior, len(cases) > 1))
    return site


def text(
    content: str, kind: str = "text/plain", policy: str = PAGE_POLICY, status: HTTPStatus = HTTPStatus.OK
) -> Answer:
    """Answer with a text; what is no UTF-8 is spelled out."""
    encoded = printable(content).encode()
    return Answer(f"{kind}; charset=utf-8", len(encoded), [encoded], policy, status)


def _page(render: Callable[[], str]) -> Answer:
    return text(render(), "text/html")


def _report(case: CaseResult, linked: bool) -> Answer:
    return text(report_page(case, linked), "text/html", REPORT_POLICY)


def _script(name: str) -> Answer:
    content = (ASSETS / name).read_bytes()
    return Answer("text/javascript; charset=utf-8", len(content), [content])


def _volume(scan: Scan) -> Answer:
    return Answer("application/octet-stream", nifti_size(nifti_header(scan)), nifti_parts(scan))
