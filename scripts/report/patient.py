"""Recognise a patient without saying who it is: a slow, salted hash of the PatientID."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from ..io.volume import Scan

_ROUNDS = 200_000  # a fifth of a second on one core for each PatientID that somebody tries


def describe_patient(scan: Scan) -> dict[str, str] | None:
    """Return what a report holds of a patient: {"salt", "pbkdf2_sha256"}; None if not known.

    The salt follows from the series: equal scans have equal reports, and the reports of two
    examinations cannot be linked without the PatientID.
    """
    if not scan.patient:
        return None
    salt = hashlib.sha256(str(scan.headers[0].SeriesInstanceUID).encode()).hexdigest()[:32]
    return {"salt": salt, "pbkdf2_sha256": _hash(scan.patient, salt)}


def is_patient(scan: Scan, described: Mapping[str, str] | None) -> bool | None:
    """Tell whether a scan is of the patient that a report describes; None if that is not known."""
    if not scan.patient or not described:
        return None
    return _hash(scan.patient, described["salt"]) == described["pbkdf2_sha256"]


@lru_cache(maxsize=8)
def _hash(patient: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", patient.encode(), salt.encode(), _ROUNDS).hex()
