"""A patient is recognised, and not named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom import Dataset

from scripts.io.volume import Scan
from scripts.report.patient import describe_patient, is_patient


def scan_of(patient, series="1.2.3"):
    header = Dataset()
    header.SeriesInstanceUID = series
    return Scan("ct", Path("ct"), "dicom", np.zeros((1, 1, 1)), np.eye(4), patient=patient, headers=[header])


def test_the_hash_is_that_of_the_standard_library():
    described = describe_patient(scan_of("SECRET-ID"))
    salt = hashlib.sha256(b"1.2.3").hexdigest()[:32]
    assert described == {
        "salt": salt,
        "pbkdf2_sha256": hashlib.pbkdf2_hmac("sha256", b"SECRET-ID", salt.encode(), 200_000).hex(),
    }


def test_another_series_of_the_patient_is_recognised_and_looks_different():
    first, second = (describe_patient(scan_of("SECRET-ID", series)) for series in ("1.2.3", "1.2.4"))
    assert first["salt"] != second["salt"]
    assert first["pbkdf2_sha256"] != second["pbkdf2_sha256"]
    assert is_patient(scan_of("SECRET-ID", "1.2.4"), first) is True
    assert is_patient(scan_of("SECRET-IE", "1.2.4"), first) is False


def test_without_an_id_nothing_is_known():
    assert describe_patient(scan_of("")) is None
    assert is_patient(scan_of(""), describe_patient(scan_of("SECRET-ID"))) is None
    assert is_patient(scan_of("SECRET-ID"), None) is None
