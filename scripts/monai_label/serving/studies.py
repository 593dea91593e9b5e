"""Where scans and labels are: a folder, with what MONAI Label's own leaves unchecked."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial, wraps
from pathlib import Path
from threading import RLock
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore

from ...errors import UserError
from ...files import write_atomic, write_text
from ...io.grids import Grid, check_belongs
from ...io.images import PICTURE_SUFFIXES, is_picture
from ...io.reading import file_suffix, read_grid, read_label
from ...transforms.items import CODE_TOLERANCE
from .uploads import discarding_upload, require_plain_name

logger = logging.getLogger(__name__)

NIFTI = (".nii", ".nii.gz")
VOLUME_LABELS = (".nii.gz", ".nii", ".nrrd")
"""What MONAI Label lists in the folder of labels and the readers read."""


def waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of a datastore wait for whoever else holds its `_lock`."""

    @wraps(method)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return wait


def changing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method change the list as it is on disk now, and nobody else meanwhile.

    MONAI Label infers a batch in a process of its own, with a list of its own.
    """

    @wraps(method)
    def change(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Not the file of `_lock_file`: MONAI Label locks that one again within its methods.
        with self._lock, FileLock(f"{self._lock_file}_changing", is_singleton=True):
            self._config_ts = 0  # or a change within one tick of the clock would not be read
            self._init_from_datastore_file()
            return method(self, *args, **kwargs)

    return change


class SharedList(LocalDatastore):
    """MONAI Label's list of scans and labels, and their files: changed by one at a time, whole.

    Requests and the thread that watches the folder use one list. MONAI Label lets them do so at
    the same time, which ends that thread; here one waits for the other, in other processes too.
    Its own may leave the list or a file half-written when it is killed; with such a list no server
    starts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the folder, as MONAI Label's own."""
        self._lock = RLock()  # always taken before the lock of the file
        super().__init__(*args, **kwargs)

    _reconcile_datastore = changing(LocalDatastore._reconcile_datastore)
    remove_image = changing(LocalDatastore.remove_image)
    remove_label = changing(LocalDatastore.remove_label)
    set_description = changing(LocalDatastore.set_description)
    set_name = changing(LocalDatastore.set_name)
    update_image_info = changing(LocalDatastore.update_image_info)
    update_label_info = changing(LocalDatastore.update_label_info)
    _init_from_datastore_file = waiting(LocalDatastore._init_from_datastore_file)
    datalist = waiting(LocalDatastore.datalist)
    get_image_info = waiting(LocalDatastore.get_image_info)
    get_label_info = waiting(LocalDatastore.get_label_info)
    get_label_uri = waiting(LocalDatastore.get_label_uri)
    get_labels_by_image_id = waiting(LocalDatastore.get_labels_by_image_id)
    get_labeled_images = waiting(LocalDatastore.get_labeled_images)
    get_unlabeled_images = waiting(LocalDatastore.get_unlabeled_images)
    list_images = waiting(LocalDatastore.list_images)
    status = waiting(LocalDatastore.status)
    json = waiting(LocalDatastore.json)

    @changing
    def _keep_image(self, image_id: str, image: Path, info: Mapping[str, Any]) -> None:
        """Put a scan in its place."""
        _, suffix = self._to_id(image.name)
        target = Path(self._datastore.image_path()) / self._filename(image_id, suffix)
        self._datastore.objects[image_id] = ImageLabelModel(image=_keep(image, target, suffix, info))
        self._update_datastore_file()

    @changing
    def _replace_label(self, image_id: str, label: Path, tag: str, info: Mapping[str, Any]) -> None:
        """Put a label in the place of the earlier one; remove one in another format afterwards."""
        suffix = file_suffix(label)
        folder = Path(self._datastore.label_path(tag))
        target = folder / self._filename(image_id, suffix)
        entry = self._datastore.objects.get(image_id) or unknown(image_id)
        earlier = entry.labels.get(tag)
        entry.labels[tag] = _keep(label, target, suffix, info)
        self._update_datastore_file()
        if earlier is not None and earlier.ext != suffix:
            (folder / self._filename(image_id, earlier.ext)).unlink(missing_ok=True)

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the list at once."""
        with self._lock, FileLock(self._lock_file) if lock else nullcontext():
            content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
            file = write_text(self._datastore_config_path, content)
            self._config_ts = file.stat().st_mtime


class Studies(SharedList):
    """The folder of scans: says what is unknown, and takes a label only on its scan's grid."""

    @waiting
    def get_image_uri(self, image_id: str) -> str:
        """Return the scan's file; MONAI Label's own returns an empty name for an unknown scan."""
        return str(super().get_image_uri(image_id)) or unknown(image_id)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take a new scan, and nothing but a scan; its name may not lead out of the folder."""
        with discarding_upload(image_filename):
            require_plain_name(image_id)
            known = settings.MONAI_LABEL_DATASTORE_FILE_EXT
            if not any(fnmatch(image_filename, pattern) for pattern in known):
                name = "".join(Path(image_filename).suffixes) or "a name without extension"
                raise HTTPException(400, f"{image_id}: {name}; expected: {', '.join(known)}")
            _grid(Path(image_filename), image_id)
            self._add_new_image(image_id, Path(image_filename), image_info or {})
            return image_id

    @changing
    def _add_new_image(self, image_id: str, image: Path, info: Mapping[str, Any]) -> None:
        self._reconcile_datastore()  # a scan may have been put there by hand
        if image_id in self._datastore.objects:
            text = "a scan with this id is stored already"
            raise HTTPException(409, f"{image_id}: {text}; expected: another id, or that scan deleted first")
        self._keep_image(image_id, image, info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label; once complete, it replaces an earlier one of the same scan and tag."""
        label_tag = str(getattr(label_tag, "value", label_tag))  # MONAI Label's own tags are members of an Enum
        with discarding_upload(label_filename):
            require_plain_name(label_tag)
            warning = check_label(label_filename, self.get_image_uri(image_id), f"the label of {image_id}")
            info = {**(label_info or {}), **({"warning": warning} if warning else {})}
            self._replace_label(image_id, Path(label_filename), label_tag, info)
            return image_id


def _keep(source: Path, target: Path, suffix: str, info: Mapping[str, Any]) -> DataModel:
    """Write a file beside its place and rename it; return what the list says of it."""
    write_atomic(target, partial(shutil.copyfile, source))
    return DataModel(info={**info, "ts": int(time.time()), "name": target.name}, ext=suffix)


def check_label(label: str, scan: str, name: str) -> str:
    """Refuse a label's file that does not belong to its scan's; an answer calls it `name`.

    Returns:
        A warning where it marks nothing, else an empty text.

    Raises:
        HTTPException: 400.
    """
    file, image = Path(label), Path(scan)
    known = PICTURE_SUFFIXES if is_picture(image) else VOLUME_LABELS
    if file_suffix(file) not in known:
        ending = "".join(file.suffixes) or "a name without extension"
        raise HTTPException(400, f"{name}: {ending}; expected: {' or '.join(known)}")
    try:
        check_belongs(_grid(file, name), _grid(image, image.name))
        if np.any(read_label(file) > CODE_TOLERANCE):
            return ""
    except UserError as error:
        raise HTTPException(400, str(error).replace(str(file), name, 1)) from None
    warning = "no voxel is marked as infection"
    logger.warning(f"{name}: {warning}")
    return warning


def check_annotations(cases: Sequence[Mapping[str, str]]) -> list[str]:
    """Check before a training that the labels in the folder belong to their scans.

    Returns:
        Warnings: each label that marks nothing.

    Raises:
        HTTPException: 400, with one line for the first label that cannot be used.
    """
    warnings = [(case["label"], check_label(case["label"], case["image"], case["label"])) for case in cases]
    return [f"{label}: {warning}" for label, warning in warnings if warning]


def _grid(file: Path, name: str) -> Grid:
    try:
        return replace(read_grid(file), name=name)
    except UserError as error:
        raise UserError(str(error).replace(str(file), name, 1)) from None


def unknown(image_id: str) -> NoReturn:
    """Say that there is no such scan."""
    raise HTTPException(404, f"{image_id}: no such image; expected: an id that /datastore/?output=all lists")


def stored_shape(path: str) -> tuple[int, ...]:
    """Return the size of a NIfTI file."""
    try:
        return tuple(nib.load(path).shape)
    except Exception as error:
        raise HTTPException(400, f"{Path(path).name}: cannot be read ({error}); expected: NIfTI") from error
