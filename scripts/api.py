"""The package from Python: a scan in a file or in memory to a mask, measures and a report."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from .errors import UserError, user_errors
from .inference.segmenter import Segmenter
from .inference.shipped import choose_model
from .io.limits import limited, parse_limits
from .io.memory import scan_from_memory
from .pipeline.case import CaseSegmenter, Settings
from .pipeline.inputs import check_choice, expand_inputs
from .pipeline.result import Result as Result
from .settings import count, given_path, usable_device
from .transforms.hounsfield import parse_intensity


class InfectionSegmenter:
    """Finds COVID-19 infection on chest CT with weights that are loaded once.

    Research use only, not a medical device. Threads may share one; the network takes their slices
    in turn. A copy, as another process gets, loads the weights from their file again.

    Args:
        weights: trained weights with their metadata beside them; None: those of `model`.
        device: "cpu", "cuda", "cuda:1", "mps"; None: the first GPU, else the CPU.
        threshold: decision threshold on the probability, between 0 and 1; None: the metadata's.
        smallest_lesion_mm3: smaller lesions are removed; None: the metadata's.
        flips: test-time augmentation by flips: True or 4 views, 2, False or 1; as many times the
            work; None: as the metadata says.
        backend: "torch", "openvino", or "auto": the fastest for this machine.
        precision: "fp32", "bf16", or "auto": bf16 where the processor computes in it.
        keep_outside: keeps marks outside of the body and the lungs, which are removed otherwise.
        model: weights of the package: "compact", "full", or "auto": full on CUDA if it did no worse
            in cross-validation, else compact.

    Raises:
        UserError: if weights or metadata cannot be used, a setting makes no sense, or the backend,
            precision or model asked for cannot be had here.

    Example:
        >>> import numpy as np
        >>> segmenter = InfectionSegmenter(device="cpu", flips=False)
        >>> hu = np.full((40, 36, 3), -850, np.int16)
        >>> result = segmenter.predict((hu, np.diag([-5.0, -5.0, 5.0, 1.0])))
        >>> result.mask.shape, result.mask.dtype.name
        ((40, 36, 3), 'uint8')
        >>> result.measures["infection"]["infection_ml"]
        0.0
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str | None = None,
        threshold: float | None = None,
        smallest_lesion_mm3: float | None = None,
        flips: bool | int | None = None,
        backend: str = "auto",
        precision: str = "auto",
        keep_outside: bool = False,
        model: str = "auto",
    ) -> None:
        point = threshold, smallest_lesion_mm3, flips
        file = _path("weights", weights)
        self._arguments = file and file.absolute(), device, *point, backend, precision, keep_outside, model
        self._choice = choose_model(model, weights, device)
        with _no_modes_of_the_caller(usable_device(device)):
            self._segmenter = Segmenter(self._choice.path, device, *point, backend, precision, keep_outside)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    @user_errors()
    def predict(
        self,
        image: Any,
        *,
        probability: bool = False,
        intensity: str = "auto",
        lungs: str | Path | None = None,
        lobes: str | Path | None = None,
        prior: str | Path | None = None,
        force: bool = False,
        series: str | int | None = None,
        volume: int | None = None,
        strict: bool = False,
        limits: Sequence[str] = (),
        name: str = "scan",
        progress: Callable[[int, int], Any] | None = None,
    ) -> Result:
        """Segment one scan; no file is written.

        Args:
            image: a path (NIfTI, NRRD, MetaImage, PNG, JPG, a DICOM folder, file or .zip), a
                nibabel image, a SimpleITK image, or (array, affine): HU (X, Y, Z) and voxel index
                to millimetres in RAS, (4, 4).
            probability: whether the result keeps the probability, a byte a voxel.
            intensity: "auto" (as the metadata of the weights state), "hu", or "window:LO,HI" for an
                export mapped from that HU window.
            lungs: your own lung mask on the scan's grid (1 right and 2 left, or one value), or
                weights (.pt) of a network that finds lungs.
            lobes: your own lobe mask on the scan's grid, a file or TotalSegmentator's folder of
                single masks; without `lungs` it gives the lungs, too.
            prior: the report.json of an earlier scan of the patient, or its folder.
            force: compares with a prior of another patient or of other weights, too.
            series: SeriesNumber, id or SeriesInstanceUID of the DICOM series, where a folder
                holds several.
            volume: which volume of a 4-D image, from 1.
            strict: refuses scans with warnings.
            limits: raises those of a file that a refusal named, as `--limit` does: ["voxels=4e9"].
            name: what results and messages call an image in memory.
            progress: called with the slices that were done now, and those in all.

        Returns:
            The result. It holds the scan's values and what a .zip unpacks to until it is deleted.

        Raises:
            UserError: if the image cannot be used, a path holds several scans, or the extra `dicom`
                is not installed.
        """
        given = _path("lungs", lungs), _path("lobes", lobes), _path("prior", prior)
        parse_intensity(intensity)
        series = None if series is None else str(series)
        volume = None if volume is None else count("volume", volume)
        settings = Settings(intensity, probability, *given, force, series, volume, strict, limits=parse_limits(limits))
        model = CaseSegmenter(self._segmenter, settings, self._choice)
        with _no_modes_of_the_caller(self._segmenter.device), limited(settings.limits), ExitStack() as stack:
            if isinstance(image, str | Path):
                cases = expand_inputs([image])
                if len(cases) != 1:
                    raise UserError(f"{image}: {len(cases)} scans; expected: one, call `predict` for each")
                check_choice(cases, series, volume)
                result = model.predict(cases[0], stack, progress)
            else:
                result = model.segment(scan_from_memory(image, name, volume), model.given(name), progress)
            weakref.finalize(result, stack.pop_all().close)  # files of a .zip, which `save` may need
        return result


@contextmanager
def _no_modes_of_the_caller(device: torch.device) -> Iterator[None]:
    """Compute as ever, whatever default device or autocast holds in this thread."""
    with torch.device("cpu"), torch.autocast("cpu", enabled=False), torch.autocast(device.type, enabled=False):
        yield


def _path(name: str, given: Any) -> Path | None:
    return None if given is None else given_path(name, given)
