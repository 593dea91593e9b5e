"""Where scans and labels are: a folder, with what MONAI Label's own leaves unchecked."""

from __future__ import annotations

import logging
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore

from scripts.errors import UserError
from scripts.grids import Grid, check_belongs
from scripts.monai_label.serving.uploads import discarding_upload, require_plain_name

logger = logging.getLogger(__name__)

NIFTI = (".nii", ".nii.gz")


class Studies(LocalDatastore):
    """The folder of scans: says what is unknown, and takes a label only on its scan's grid."""

    def get_image_uri(self, image_id: str) -> str:
        """Returns the scan's file; MONAI Label's own returns an empty name for an unknown scan."""
        return str(super().get_image_uri(image_id)) or unknown(image_id)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Takes a new scan; its name may not lead out of the folder, and it may be nothing but a scan."""
        with discarding_upload(image_filename):
            require_plain_name(image_id)
            known = settings.MONAI_LABEL_DATASTORE_FILE_EXT
            if not any(fnmatch(image_filename, pattern) for pattern in known):
                name = "".join(Path(image_filename).suffixes) or "a name without extension"
                raise HTTPException(400, f"{image_id}: {name}; expected: {', '.join(known)}")
            return str(super().add_image(image_id, image_filename, image_info))

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keeps a label, replacing an earlier one of the same scan and tag."""
        label_tag = str(getattr(label_tag, "value", label_tag))  # MONAI Label's own tags are members of an Enum
        with discarding_upload(label_filename):
            require_plain_name(label_tag)
            scan = self.get_image_uri(image_id)
            if scan.endswith(NIFTI):
                warning = check_label(label_filename, scan, f"the label of {image_id}")
                label_info = {**(label_info or {}), **({"warning": warning} if warning else {})}
            return str(super().save_label(image_id, label_filename, label_tag, label_info))


def check_label(label: str, scan: str, name: str) -> str:
    """Refuses a label that does not belong to its scan.

    Args:
        label: the label's file.
        scan: the scan's NIfTI file.
        name: what an answer calls the label.

    Returns:
        A warning where it marks nothing, else an empty text.

    Raises:
        HTTPException: 400.
    """
    if not label.endswith(NIFTI):
        ending = "".join(Path(label).suffixes) or "a name without extension"
        raise HTTPException(400, f"{name}: {ending}; expected: {' or '.join(NIFTI)}")
    try:
        stored = nib.load(label)
        values = np.asanyarray(stored.dataobj)
    except Exception as error:
        raise HTTPException(400, f"{name}: cannot be read ({error}); accepted: NIfTI") from error
    image = nib.load(scan)
    try:
        check_belongs(Grid(name, stored.shape, stored.affine), Grid("its scan", image.shape, image.affine))
    except UserError as error:
        raise HTTPException(400, str(error)) from None
    if values.any():
        return ""
    warning = "no voxel is marked as infection"
    logger.warning(f"{name}: {warning}")
    return warning


def unknown(image_id: str) -> NoReturn:
    """Says that there is no such scan."""
    raise HTTPException(404, f"{image_id}: no such image; accepted: an id that /datastore/?output=all lists")


def stored_shape(path: str, name: str | None = None) -> tuple[int, ...]:
    """Returns the size of a NIfTI file."""
    try:
        return tuple(nib.load(path).shape)
    except Exception as error:
        raise HTTPException(400, f"{name or Path(path).name}: cannot be read ({error}); accepted: NIfTI") from error
