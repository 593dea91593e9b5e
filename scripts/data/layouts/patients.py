"""Patients from file names: copies of Zenodo 3757476 name the same scan differently."""

import re
import unicodedata

# coronacases_001, coronacases_org_001, Data-1_coronacases_org_001_10 (a slice of COVID-SemiSeg)
_CORONACASES = re.compile(r"(?:Data-\d+_)?coronacases_(?:org_)?(?P<case>\d+)(?:_\d+)?")
# radiopaedia_10_85902_1, radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm,
# Data-1_radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm_12 (a slice of COVID-SemiSeg)
_RADIOPAEDIA = re.compile(
    r"(?:Data-\d+_)?radiopaedia_(?:org_covid-19-pneumonia-)?(?P<case>\d+)_(?P<study>\d+)_(?P<series>\d+)"
    r"(?:-dcm)?(?:_\d+)?"
)
# volume-covid19-A-0003, volume-covid19-A-0013_1: further scans of one patient carry a suffix
_COVID_19_20 = re.compile(r"(?P<patient>volume-covid19-[A-Z]-\d+)(?:_.+)?")


def spelled_alike(name: str) -> str:
    """Spell a name in one way: composed accents, which macOS decomposes, and no space around it.

    >>> spelled_alike("Mu" + chr(0x308) + "ller ") == "M" + chr(0xFC) + "ller"
    True
    """
    return unicodedata.normalize("NFC", name).strip()


def zenodo_name(stem: str) -> str:
    """Gives a scan of Zenodo 3757476 the name it has there, whatever copy or slice of it a file is.

    A name that is none of its copies stays as it is.

    >>> zenodo_name("Data-1_coronacases_org_001_10")
    'coronacases_001'
    >>> zenodo_name("radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm")
    'radiopaedia_10_85902_1'
    >>> zenodo_name("study_0255")
    'study_0255'
    """
    if match := _CORONACASES.fullmatch(stem):
        return f"coronacases_{match['case']}"
    if match := _RADIOPAEDIA.fullmatch(stem):
        return f"radiopaedia_{match['case']}_{match['study']}_{match['series']}"
    return stem


def patient_of_scan(stem: str) -> str:
    """Name the patient of a scan: the number in the file name, else the scan itself.

    A radiopaedia case is one patient, with one or several studies and series:
    radiopaedia_<case>_<study>_<series>.

    >>> patient_of_scan("radiopaedia_29_86490_1") == patient_of_scan("radiopaedia_29_86491_1")
    True
    >>> patient_of_scan("coronacases_org_004")
    'coronacases_004'
    """
    name = zenodo_name(stem)
    if match := _RADIOPAEDIA.fullmatch(name):
        return f"radiopaedia_{match['case']}"
    if match := _COVID_19_20.fullmatch(name):
        return match["patient"]
    return name


def patient_of_slice(stem: str) -> str | None:
    """Name the patient of a picture from its file name; None when the name tells nothing.

    >>> patient_of_slice("Data-1_radiopaedia_org_covid-19-pneumonia-10_85902_3-dcm_7")
    'radiopaedia_10'
    >>> patient_of_slice("17") is None
    True
    """
    name = zenodo_name(stem)
    known = _CORONACASES.fullmatch(name) or _RADIOPAEDIA.fullmatch(name)
    return patient_of_scan(name) if known else None
