"""Scans and labels on a DICOMweb server, with the checks that MONAI Label's own class lacks.

Scans are CT series, named by their SeriesInstanceUID. Labels are DICOM SEG of annotators. A SEG
whose segments are all AUTOMATIC was made by a model and is no label, whoever stored it. Of several
labels of a scan the newest counts. What lies in the cache are copies.
"""

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fastapi import HTTPException
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.utils.convert import binary_to_image, dicom_to_nifti
from monailabel.datastore.utils.dicom import dicom_web_download_series
from pydicom import Dataset, dcmread

from ...files import unfinished_folder
from ..request_values import TAG_OF_ANNOTATORS
from .answers import answering
from .dicom_seg import BY_ANNOTATOR, segments_of_annotators, write_label, write_seg
from .dicom_series import check_places
from .studies import SharedList, check_label
from .uploads import discarding_upload, require_plain_name

logger = logging.getLogger(__name__)

_UID = re.compile(r"[0-9.]{1,64}")
SERIES = "SeriesInstanceUID"


@dataclass(frozen=True)
class Annotation:
    """A SEG of an annotator on the DICOMweb server."""

    image: str
    study: str
    series: str
    instance: str
    time: str

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"label {self.series} of {self.image}"


class DicomStudies(SharedList, DICOMWebDatastore):
    """The CT series and labels of a DICOMweb server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known: dict[str, list[Annotation]] = {}
        super().__init__(*args, **kwargs)

    def list_images(self) -> list[str]:
        """Return the series that the server holds now; MONAI Label caches them for two hours."""
        return [_series(one) for one in self._client.search_for_series(search_filters=self._search_filter)]

    @answering
    def get_image_uri(self, image_id: str) -> str:
        """Return the scan's file, which is made from the series when it is asked for first."""
        scan = Path(self._datastore.image_path()).resolve() / f"{image_id}.nii.gz"
        if not _UID.fullmatch(image_id):
            _unknown(image_id)
        if not _is_here(scan):
            with self._lock:  # two requests for one new scan
                if not _is_here(scan):
                    self._fetch_image(image_id)
        return str(scan)

    def _fetch_image(self, image_id: str) -> None:
        query = {**self._search_filter, SERIES: image_id}
        found = [one for one in self._client.search_for_series(search_filters=query) if _series(one) == image_id]
        if not found:
            _unknown(image_id)
        target = Path(self._datastore.image_path()).resolve() / image_id
        with unfinished_folder(target.parent) as folder:
            series = folder / image_id
            study = str(Dataset.from_json(found[0]).StudyInstanceUID)
            dicom_web_download_series(study, image_id, str(series), self._client, self._fetch_by_frame)
            with _removed(dicom_to_nifti(str(series))) as scan:
                check_places(series, scan)
                if not target.exists():
                    series.rename(target)
                self._keep_image(image_id, Path(scan), self._dicom_info(image_id))

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> NoReturn:
        """Refuse an upload: the DICOMweb server would not hold it."""
        with discarding_upload(image_filename):
            raise HTTPException(400, "scans come from the DICOMweb server; expected: a series that is stored there")

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the scans that an annotator labelled."""
        return list(self._annotations())

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the scans that no annotator labelled."""
        labelled = self._annotations()
        return [image for image in self.list_images() if image not in labelled]

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Return the copy of a label; labels have the names of their scans."""
        return str(SharedList.get_label_uri(self, label_id, label_tag))

    @answering
    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return what a training learns from: the scans with their annotators' labels."""
        return [
            {"image": self.get_image_uri(one.image), "label": self.get_label_uri(one.image, TAG_OF_ANNOTATORS)}
            for one in self._annotations().values()
            if self._fetch_label(one)
        ]

    def _annotations(self) -> dict[str, Annotation]:
        """Return the newest label of each scan."""
        images, newest = set(self.list_images()), dict[str, Annotation]()
        for found in self._client.search_for_series(search_filters={"Modality": "SEG"}):
            for one in self._annotations_in(Dataset.from_json(found)):
                if one.image in images and self._age(one) >= self._age(newest.get(one.image, one)):
                    newest[one.image] = one
        return newest

    def _age(self, one: Annotation) -> tuple[str, bool]:
        """Sort labels by time; of two in one second the one saved through here is newer."""
        return one.time, one.series == self._copied(one.image)

    def _copied(self, image_id: str) -> str:
        """Return the SEG that a label was copied from."""
        return str(self.get_label_info(image_id, TAG_OF_ANNOTATORS).get(SERIES, ""))

    def _annotations_in(self, series: Dataset) -> list[Annotation]:
        """Return the annotators' labels in a series; read once, because instances do not change."""
        uid = str(series.SeriesInstanceUID)
        if uid not in self._known:
            stored = self._client.retrieve_series_metadata(str(series.StudyInstanceUID), uid)
            self._known[uid] = [one for one in map(_annotation, map(Dataset.from_json, stored)) if one]
        return self._known[uid]

    def _fetch_label(self, one: Annotation) -> bool:
        """Copy a label unless it is here; leave out one that cannot be used, with a log line."""
        copy = self.get_label_uri(one.image, TAG_OF_ANNOTATORS)
        if self._copied(one.image) == one.series and Path(copy).is_file():
            return True
        scan = self.get_image_uri(one.image)
        try:
            with tempfile.TemporaryDirectory() as folder:
                label = f"{folder}/label.nii.gz"
                write_label(self._client.retrieve_instance(one.study, one.series, one.instance), scan, label)
                check_label(label, scan, one.name)
                self._replace_label(one.image, Path(label), TAG_OF_ANNOTATORS, {SERIES: one.series})
        except Exception as error:
            logger.warning(f"{one.name} is left out: {getattr(error, 'detail', error)}")
            return False
        return True

    @answering
    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Keep a label; that of an annotator goes to the DICOMweb server, as a new SEG."""
        tag, info = str(getattr(label_tag, "value", label_tag)), dict(label_info or {})
        with discarding_upload(label_filename):
            require_plain_name(tag)
            scan, name = self.get_image_uri(image_id), f"the label of {image_id}"
            with _as_nifti(label_filename, scan, name) as label:
                warning = check_label(label, scan, name)
                if warning and tag == TAG_OF_ANNOTATORS:
                    raise HTTPException(400, f"{name}: {warning}, and DICOM SEG needs a segment; expected: a mark")
                if tag == TAG_OF_ANNOTATORS:
                    info[SERIES] = self._store(label, Path(scan).with_name(image_id), info.get("label_info"))
                elif warning:
                    info["warning"] = warning
                self._replace_label(image_id, Path(label), tag, info)
                return image_id

    def _store(self, label: str, series: Path, label_info: Any) -> str:
        """Send an annotator's label to the server and return the SEG's series."""
        with _removed(write_seg(str(series), label, label_info, BY_ANNOTATOR)) as file:
            seg = dcmread(file)
        answer = self._client.store_instances([seg])
        if answer.get("FailedSOPSequence"):
            raise HTTPException(502, "the DICOMweb server did not take the label; its log says why")
        return str(seg.SeriesInstanceUID)


def _is_here(scan: Path) -> bool:
    """Whether the series and the file that is made of it were copied."""
    return scan.is_file() and scan.with_name(scan.name.removesuffix(".nii.gz")).is_dir()


def _series(found: dict[str, Any]) -> str:
    return str(Dataset.from_json(found).SeriesInstanceUID)


def _annotation(seg: Dataset) -> Annotation | None:
    """Return a SEG's header, unless a model made it or it names no series."""
    uid = str(seg.SeriesInstanceUID)
    referenced = seg.get("ReferencedSeriesSequence")
    if not referenced or not segments_of_annotators(seg):
        logger.info(f"SEG {uid} is no annotator's label: {'a model made it' if referenced else 'it names no series'}")
        return None
    time = f"{seg.get('ContentDate', '')}{str(seg.get('ContentTime', '')).split('.')[0]}"
    image = str(referenced[0].SeriesInstanceUID)
    return Annotation(image, str(seg.StudyInstanceUID), uid, str(seg.SOPInstanceUID), time)


@contextmanager
def _as_nifti(label: str, scan: str, name: str) -> Iterator[str]:
    """Give a label as a file that says where it lies; OHIF sends the voxels alone."""
    if not label.endswith(".bin"):
        yield label
        return
    try:
        file = binary_to_image(scan, label)
    except ValueError as error:
        raise HTTPException(400, f"{name}: {error}; expected: one byte for each voxel of the scan") from error
    with _removed(file):
        yield file


@contextmanager
def _removed(file: str) -> Iterator[str]:
    try:
        yield file
    finally:
        Path(file).unlink(missing_ok=True)


def _unknown(image_id: str) -> NoReturn:
    raise HTTPException(404, f"{image_id}: no such image; expected: the {SERIES} of a series on the DICOMweb server")
