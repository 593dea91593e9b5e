"""Reading of scans and labels that names the file which cannot be read."""

import zlib
from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import ImageReader, PILReader
from monai.transforms import LoadImaged
from nibabel.filebasedimages import ImageFileError

from ..errors import UserError, find_user_error
from ..io.images import grey_values, label_values
from ..io.monai_reader import ScanReader


class LoadScand(LoadImaged):
    """`LoadImaged` with the bundle's readers, channel first.

    Of `labels`, a palette image is read by its indices, not by its grey values.
    """

    def __init__(self, keys: KeysCollection, labels: bool = False, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, ensure_channel_first=True, allow_missing_keys=allow_missing_keys)
        converter = label_values if labels else grey_values
        for reader in (ScanReader(), PILReader(converter=converter)):  # the last that knows a suffix reads it
            self.register(reader)

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Return the item with images in place of paths; UserError if a file cannot be read."""
        try:
            return dict(super().__call__(data, reader))
        except (OSError, EOFError, ValueError, RuntimeError, zlib.error, ImageFileError) as error:
            if find_user_error(error):
                raise
            files = ", ".join(str(data[key]) for key in self.key_iterator(dict(data)))
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{files}: cannot be read ({reason}); expected: NIfTI, NRRD, MetaImage, DICOM, PNG, JPG, BMP"
            ) from error
