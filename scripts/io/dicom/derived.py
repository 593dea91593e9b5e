"""What the objects derived from a DICOM series have in common: identity and origin.

UIDs follow from the source series, the weights and the settings: a repeated run gives the same ones
and replaces in an archive what the first one wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import generate_uid

from ...files import write_atomic
from .header import get_number

MANUFACTURER = "lung_infection_ct_segmentation"
_LONG_STRING = 64  # characters in a DICOM LO value
_HIGHEST_NUMBER = 2**31 - 1  # of a DICOM IS value (PS3.5 table 6.2-1)
_NUMBERS = {"SEG": 1000, "SR": 2000, "SC": 3000, "PDF": 4000, "classes SEG": 5000}


@dataclass(frozen=True)
class Maker:
    """The software that derives an object, and what its result depends on.

    Attributes:
        algorithm: name of the model.
        version: version of the software.
        depends_on: weights and settings as text, part of every UID.
        synthetic: whether the weights were trained on synthetic scans only.
        parameters: what a structured report repeats of weights and settings.
        day: of the run.
    """

    algorithm: str = MANUFACTURER
    version: str = ""
    depends_on: str = ""
    synthetic: bool = False
    parameters: tuple[str, ...] = ()
    day: date = field(default_factory=date.today)

    def uid(self, sources: Sequence[Dataset], *parts: object) -> str:
        """Return the UID of a part of what is derived from a series, always the same one."""
        images = sorted(str(source.SOPInstanceUID) for source in sources)
        series = [str(sources[0].SeriesInstanceUID), *images]
        depends = [*series, self.algorithm, self.version, self.depends_on, *map(str, parts)]
        return str(generate_uid(entropy_srcs=["|".join(depends)]))

    def attributes(self, sources: Sequence[Dataset], kind: str, number: int = 1) -> dict[str, Any]:
        """Return what highdicom asks of an instance: UIDs, numbers, description, equipment.

        Args:
            sources: the headers of the source series, see `read_sources`.
            kind: "SEG", "SR", "SC", "PDF" or "classes SEG"; each is a series of its own.
            number: of the instance in this series.
        """
        subject = "DEMONSTRATION WEIGHTS" if self.synthetic else "Lung opacity"
        return {
            "series_instance_uid": self.uid(sources, kind),
            "sop_instance_uid": self.uid(sources, kind, number),
            "instance_number": number,
            "series_number": _series_number(sources[0], _NUMBERS[kind]),
            "series_description": long_string(f"{subject} {kind} {self.version[:16]} {self.day}, AI, research use"),
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": long_string(self.algorithm),
            "software_versions": long_string(self.version),
            "device_serial_number": "0",  # must not be empty; software has none
        }


def save_object(made: Dataset, path: Path) -> Path:
    """Write a DICOM object as a file, complete or not at all; return its path."""
    return write_atomic(path, lambda temporary: made.save_as(temporary, enforce_file_format=True))


def long_string(words: str) -> str:
    """Return words as a DICOM LO value: no backslash, no line breaks, at most 64 characters."""
    return " ".join(words.replace("\\", "/").split())[:_LONG_STRING]


def plain_text(words: str) -> str:
    """Return words in ASCII, which every character set holds, on one line."""
    return " ".join(words.split()).encode("ascii", errors="replace").decode()


def _series_number(source: Dataset, offset: int) -> int:
    found = min(max(int(get_number(source, "SeriesNumber") or 0), 0), _HIGHEST_NUMBER)
    return found + offset if found <= _HIGHEST_NUMBER - offset else found - offset
