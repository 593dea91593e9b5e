"""What the server gives away, to whom, and that it is the scan, voxel for voxel."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from scripts.errors import UserError
from scripts.io.limits import Limits, limited
from scripts.report.wording import size
from scripts.viewer.pages import case_page, list_page
from scripts.viewer.results import CaseResult, find_case, find_cases
from scripts.viewer.server import serving
from scripts.viewer.site import build_site
from tests.bundle_runner import heed_ctrl_c
from tests.viewer.conftest import Made

Get = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def address(made: Made) -> Iterator[str]:
    with serving(build_site(find_cases(made.output), find_case(made.output / "study"))) as address:
        yield address


@pytest.fixture
def get(address: str) -> Get:
    """Asks for a path below the token, or for one from the root."""
    found = urlsplit(address)

    def ask(path: str = "", whole: str | None = None, method: str = "GET", host: str | None = None):
        connection = http.client.HTTPConnection(found.hostname, found.port, timeout=60)
        connection.putrequest(method, found.path + path if whole is None else whole, skip_host=True)
        connection.putheader("Host", host or found.netloc)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    return ask


def read(content: bytes, tmp_path: Path) -> nib.Nifti1Image:
    (tmp_path / "served.nii").write_bytes(content)
    return nib.load(tmp_path / "served.nii")


def test_a_nifti_scan_is_served_as_stored(get: Get, made: Made, tmp_path: Path) -> None:
    status, headers, content = get("1/scan.nii")
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    served, stored = read(content, tmp_path), nib.load(made.scans / "chest.nii.gz")
    assert served.get_data_dtype() == stored.get_data_dtype()
    assert served.dataobj.get_unscaled().tobytes() == stored.dataobj.get_unscaled().tobytes()
    np.testing.assert_array_equal(served.affine, stored.affine)
    mask = read(get("1/mask.nii")[2], tmp_path)
    np.testing.assert_array_equal(mask.dataobj, nib.load(made.output / "chest" / "infection.nii.gz").dataobj)
    np.testing.assert_array_equal(mask.affine, stored.affine)


def test_a_dicom_series_is_served_on_the_grid_of_its_mask(get: Get, made: Made, tmp_path: Path) -> None:
    served = read(get("2/scan.nii")[2], tmp_path)
    slices = [pydicom.dcmread(path) for path in (made.scans / "study").iterdir()]
    slices.sort(key=lambda ds: ds.ImagePositionPatient[2])
    expected = np.stack([ds.pixel_array.T.astype(int) - 1024 for ds in slices], axis=-1)
    np.testing.assert_array_equal(served.get_fdata(), expected)
    np.testing.assert_allclose(served.affine, nib.load(made.output / "study" / "infection.nii.gz").affine, atol=1e-4)
    assert get("prior/scan.nii")[2] == get("2/scan.nii")[2]


def test_a_picture_is_served_as_one_slice(get: Get, made: Made, tmp_path: Path) -> None:
    served = read(get("3/scan.nii")[2], tmp_path)
    np.testing.assert_array_equal(served.dataobj[..., 0].T, np.asarray(Image.open(made.scans / "slice.png")))
    assert nib.aff2axcodes(served.affine) == ("L", "P", "S")
    page = get("3/")[2].decode()
    assert "data-layout" not in page  # one plane
    assert "Lung" not in page  # of unknown window


def test_pages_list_cases_lesions_and_keys(get: Get, made: Made) -> None:
    status, _, page = get()
    assert status == 200
    assert re.findall(r'<a href="(\d/)">(\w+)</a>', page.decode()) == [
        ("1/", "chest"),
        ("2/", "study"),
        ("3/", "slice"),
    ]
    page = get("1/")[2].decode()
    lesions = json.loads((made.output / "chest" / "report.json").read_text())["measures"]["lesions"]
    settings = json.loads(re.search(r'id="settings">(.*?)</script>', page)[1])
    assert len(settings["views"][0]["places"]) == lesions["listed_count"] == len(lesions["lesions"])
    assert [one["key"] for one in settings["windows"]] == ["l", "m", "b", "f"]
    assert f"1: {size(lesions['lesions'][0], 'infection', 'volume_ml')}" in page
    assert re.findall("<dt>(.*?)</dt>", page)[:4] == ["L", "M", "B", "F"]
    assert "on" + "click" not in page


def test_the_report_links_to_the_viewer_only_as_served(get: Get, made: Made) -> None:
    stored = (made.output / "chest" / "report.html").read_text()
    status, headers, content = get("1/report.html")
    assert status == 200
    assert "script-src" not in headers["Content-Security-Policy"]
    link = '<nav class="banner screen"><a href="./">See the scan slice by slice</a></nav>\n'
    assert content.decode().replace(link, "") == stored
    assert "lung-infection view FOLDER" in stored
    assert get("prior/report.html")[2].decode() == (made.output / "study" / "report.html").read_text()


def test_every_answer_forbids_caching_and_other_sources(get: Get) -> None:
    for path, status in (("", 200), ("1/", 200), ("1/scan.nii", 200), ("assets/niivue.js", 200), ("none", 404)):
        found, headers, _ = get(path)
        assert found == status
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert not re.search(r"https?:|\*|unsafe", policy)
        assert "Access-Control-Allow-Origin" not in headers


def test_nothing_without_the_token_or_for_another_host(get: Get, address: str) -> None:
    path = urlsplit(address).path
    refused = [
        *({"whole": one} for one in ("/", "/1/scan.nii", f"{path[:-2]}/1/", "/x" + path[1:], "/favicon.ico")),
        *({"host": one} for one in ("evil.example", f"evil.example:{urlsplit(address).port}", "127.0.0.1")),
    ]
    for request in refused:
        status, _, content = get(**request)
        assert (status, content) == (403, b"expected: the address that the command printed")
    assert get(host=f"localhost:{urlsplit(address).port}")[0] == 200


def test_only_listed_addresses_are_served(get: Get) -> None:
    outside = ["../manifest.json", "1/../../manifest.json", "1/report.json", "assets/../server.py", "assets/"]
    outside += [
        "%2e%2e/manifest.json",
        "1/%2e%2e/%2e%2e/manifest.json",
        "//etc/passwd",
        "1/infection.nii.gz",
        "9/",
        "1",
    ]
    outside += ["assets/niivue.LICENSE.txt", "prior/"]
    for path in outside:
        assert get(path)[0] == 404, path
    assert get("1/?x=../../manifest.json")[0] == 200


def test_head_has_no_body_and_nothing_can_be_written(get: Get) -> None:
    status, headers, content = get("1/scan.nii", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) == len(get("1/scan.nii")[2])
    for method in ("POST", "PUT", "DELETE"):
        assert get("1/", method=method)[0] == 501


def test_a_scan_that_is_gone_is_one_line_in_its_place(own: Made) -> None:
    shutil.rmtree(own.scans / "study")
    with serving(build_site(find_cases(own.output))) as address:
        found = urlsplit(address)
        connection = http.client.HTTPConnection(found.hostname, found.port, timeout=60)
        connection.request("GET", f"{found.path}2/scan.nii")
        answer = connection.getresponse()
        line = answer.read().decode()
        assert answer.status == 409
        assert line.startswith(f"{own.scans / 'study'}: no such file or folder; expected:")
        assert "\n" not in line
        connection.request("GET", f"{found.path}2/")
        page = connection.getresponse().read().decode()
        assert line.split(";")[0] in page
        assert "<canvas" not in page
        connection.close()


def test_loopback_alone_a_new_token_each_time_and_a_port_that_is_taken(made: Made) -> None:
    site = build_site(find_cases(made.output))
    with serving(site) as first, serving(site) as second:
        assert urlsplit(first).hostname == "127.0.0.1"
        tokens = [urlsplit(one).path.strip("/") for one in (first, second)]
        assert tokens[0] != tokens[1]
        assert all(len(token) >= 32 for token in tokens)
        with pytest.raises(UserError, match="expected: a free one, or --port 0"), serving(site, urlsplit(first).port):
            pass


def test_limits_hold_in_the_threads_that_answer(made: Made) -> None:
    def ask(address: str, place: str) -> tuple[int, bytes]:
        found = urlsplit(address)
        connection = http.client.HTTPConnection(found.hostname, found.port, timeout=60)
        connection.request("GET", f"{found.path}1/{place}")
        answer = connection.getresponse()
        return answer.status, answer.read()

    site = build_site(find_cases(made.output / "slice"))
    with limited(Limits(slice_voxels=100)), serving(site) as address:
        status, content = ask(address, "scan.nii")
        assert (status, b"at most 100 (--limit slice_voxels=N or " in content) == (409, True)
        assert b"at most 100 (--limit slice_voxels=N or " in ask(address, "")[1]
    with serving(site) as address:
        assert ask(address, "scan.nii")[0] == 200


def test_ctrl_c_ends_the_command_in_one_line(made: Made, bundle_root: Path) -> None:
    command = [sys.executable, "-m", "scripts", "view", str(made.output / "chest"), "--no-browser"]
    process = subprocess.Popen(
        command,
        cwd=bundle_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    address = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/1/", address)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "stopped\n")


def test_a_report_of_an_earlier_version_is_one_line_of_the_list(
    small_report: Callable[..., Any], tmp_path: Path
) -> None:
    old, new = deepcopy(small_report()), small_report()
    del old["measures"]["lesion_free"]
    entry = {"source": str(tmp_path / "scan.nii.gz"), "kind": "file", "name": "scan", "folder": "old"}
    cases = [CaseResult(tmp_path / name, report, entry) for name, report in (("old", old), ("new", new))]
    page = list_page(cases)
    said = f"{tmp_path}/old/report.json: of an earlier version, without &#39;lesion_free&#39;; expected: segment"
    assert said in page
    assert "Opacities of 0.03" in page
    with pytest.raises(UserError, match=r"old/report\.json: of an earlier version"):
        case_page(cases[0], None, listed=True)


def test_a_request_for_no_address_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with serving({}) as address:
        found = urlsplit(address)
        with socket.create_connection((found.hostname, found.port), timeout=10) as connection:
            connection.sendall(b"GET http://[ HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in capfd.readouterr().err
