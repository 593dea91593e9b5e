"""Tell ground glass from consolidation inside the infection of one scan."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UserError
from ..files import check_results_folder, results_folder, sha256, write_json
from ..inference.backends.choice import choose_backend
from ..inference.building import require_prior
from ..inference.hounsfield import HounsfieldSlices
from ..inference.inferer import BATCH_SIZE
from ..inference.predictor import Predictor
from ..inference.segmenter import PROBABILITY_STEPS, Segmentation, Segmenter
from ..io.masks import mask_path, read_mask, write_classes
from ..io.volume import Note, Scan, canonical
from ..pipeline.case import read_case
from ..pipeline.inputs import expand_inputs
from ..pipeline.result import StageTimer
from ..report.report import build_report, describe_model
from ..settings import usable_device
from ..transforms.items import CLASSES
from ..transforms.slice_input import SliceInput, resize_mask_slice, resize_slice
from ..version import bundle_version

REPORT = "classes.json"
SEG = "classes_seg.dcm"
WRITTEN = {REPORT, SEG, "classes.nii.gz", "classes.nrrd", "classes.mha", "classes.png"}


class Classifier:
    """A multi-class network, loaded once, that classifies the infection of any number of scans.

    Args:
        weights: weights of configs/multiclass.yaml with their metadata beside them.
        device: a torch device; None takes CUDA, then MPS, then the CPU.
        backend: what applies the network, see `choose_backend`.
        precision: in which precision, see `choose_backend`.

    Raises:
        UserError: if weights or metadata cannot be used.

    Example:
        ::

            slices = HounsfieldSlices(scan)
            found = Segmenter("models/model.pt").segment(scan, slices, probability=True)
            classes = Classifier("models/classes.pt").classify(scan, slices, found)
    """

    def __init__(
        self, weights: str | Path, device: str | None = None, backend: str = "auto", precision: str = "auto"
    ) -> None:
        self.weights = Path(weights)
        self.device = usable_device(device)
        self.backend = choose_backend(backend, precision, self.device)
        self.predictor = Predictor.load(weights, self.device, backend=self.backend)
        self.metadata = self.predictor.metadata
        require_prior(self.metadata, weights)
        self.slice_input = SliceInput.from_metadata(self.metadata)
        self.intensity = str(self.metadata["preprocessing"]["intensity"])

    def classify(self, scan: Scan, slices: HounsfieldSlices, infection: Segmentation) -> NDArray[np.uint8]:
        """Classify the infection of one scan.

        The prior is the probability of infection. A voxel gets the class of the largest of the
        three maps, on the scan's own grid; what lies outside of the infection mask is background.
        Slices without infection are passed over.

        Returns:
            (X, Y, Z) in the scan's stored orientation, values in {0, 1, 2}.

        Raises:
            UserError: if the network's output is not finite.
            ValueError: if the probability is missing.
        """
        if infection.probability is None:
            raise ValueError("the infection comes without its probability; expected: segment(..., probability=True)")
        classes = np.zeros(scan.values.shape, np.uint8)
        turned, mask = canonical(classes, scan.affine), canonical(infection.mask, scan.affine)
        prior = canonical(infection.probability, scan.affine)
        infected = [index for index in range(len(slices)) if mask[..., index].any()]
        for start in range(0, len(infected), BATCH_SIZE):
            chosen = infected[start : start + BATCH_SIZE]
            inputs = torch.stack([self._input(slices[z], prior[..., z]) for z in chosen], dim=-1)
            maps = torch.sigmoid(self.predictor(inputs[None], scan.path))[0]
            for place, index in enumerate(chosen):
                back = torch.stack([resize_slice(one[..., place].contiguous(), slices.shape[:2]) for one in maps])
                turned[..., index] = back.argmax(dim=0).to(torch.uint8).cpu().numpy() * mask[..., index]
        return classes

    def _input(self, hu: torch.Tensor, levels: NDArray[np.uint8]) -> torch.Tensor:
        """Return one slice and its prior as configs/evaluate_multiclass.yaml makes them."""
        prior = torch.from_numpy(np.ascontiguousarray(levels)).float() / PROBABILITY_STEPS
        size = (self.slice_input.size, self.slice_input.size)
        return torch.stack([self.slice_input(hu), resize_mask_slice(prior, size)])


def given_infection(path: Path, scan: Scan) -> Segmentation:
    """Read an infection mask (above 0) that belongs to a scan: a person's, or that of any network.

    Raises:
        UserError: if it cannot be read or lies on another grid than the scan.
    """
    mask = np.zeros(scan.values.shape, np.uint8)
    canonical(mask, scan.affine)[...] = read_mask(path, scan) > 0
    return Segmentation(mask, mask * np.uint8(PROBABILITY_STEPS), [])


def measure_classes(classes: NDArray[np.uint8], mask: NDArray[np.uint8], voxel_ml: float | None) -> dict[str, Any]:
    """Say how much of the infection is of which class.

    Returns:
        For "infection", "ground_glass", "consolidation" and "unclassified" (infection that the
        network takes for background): "voxels", "ml" where the volume of a voxel is known, and
        "percent_of_infection" (None without infection).
    """
    infection = int(np.count_nonzero(mask))
    counts = {name: int(np.count_nonzero(classes == number)) for number, name in enumerate(CLASSES) if number}
    counts = {"infection": infection, **counts, "unclassified": infection - sum(counts.values())}
    found: dict[str, Any] = {}
    for name, voxels in counts.items():
        found[name] = {"voxels": voxels}
        if voxel_ml is not None:
            found[name]["ml"] = voxels * voxel_ml
        if name != "infection":
            found[name]["percent_of_infection"] = 100 * voxels / infection if infection else None
    return found


def classify_file(
    path: str | Path,
    out: str | Path,
    infection: Segmenter | Path,
    classifier: Classifier,
    intensity: str = "auto",
    volume: int | None = None,
    series: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Classify the infection of a scan, and write the classes and `classes.json` into a folder.

    Of a DICOM scan the classes are written as a DICOM SEG too, a segment for each class.

    Args:
        path: one scan, as `expand_inputs` takes it.
        out: the folder; it appears when all is complete.
        infection: what finds the infection, or a mask of it on the scan's grid.
        classifier: what tells its classes.
        intensity: see `plan_hounsfield`; "auto": as the metadata state of the weights that find the
            infection, or of the classes' where a mask is given.
        volume: see `read_scan`.
        series: see `read_dicom`.
        overwrite: replaces what an earlier call wrote.

    Returns:
        What `classes.json` holds.

    Raises:
        UserError: if the scan cannot be used, there are several, or the folder holds other files.
    """
    target = Path(out)
    replace = overwrite and (target / REPORT).is_file()
    check_results_folder(target, WRITTEN, replace)
    cases = expand_inputs([path], target)
    if len(cases) != 1:
        raise UserError(f"{path}: {len(cases)} scans; expected: one")
    if intensity == "auto":
        intensity = infection.intensity if isinstance(infection, Segmenter) else classifier.intensity
    timer = StageTimer()
    with results_folder(target, WRITTEN, replace) as folder, ExitStack() as stack:
        with timer("read"):
            scan = read_case(cases[0], stack, volume, series)
            slices = HounsfieldSlices(scan, intensity)
        if isinstance(infection, Segmenter):
            found = infection.segment(scan, slices, probability=True, timer=timer)
        else:
            found = given_infection(infection, scan)
        with timer("classes"):
            classes = classifier.classify(scan, slices, found)
        models = _describe_models(infection, classifier)
        notes = [*found.notes, *(Note("intensity", remark, "assumption") for remark in slices.map.remarks)]
        with timer("write"):
            write_classes(classes, scan, mask_path(folder, scan, "classes"))
            notes += _write_seg(classes, scan, folder / SEG, models, intensity) if scan.kind == "dicom" else []
        report = build_report(
            scan,
            measure_classes(classes, found.mask, scan.voxel_mm3 / 1000 if scan.voxel_size_known else None),
            models,
            {"intensity": intensity, "device": str(classifier.device)},
            timer.seconds,
            notes,
        )
        write_json(folder / REPORT, report)
    return report


def _write_seg(
    classes: NDArray[np.uint8], scan: Scan, path: Path, models: dict[str, Any], intensity: str
) -> list[Note]:
    from ..io.dicom.derived import Maker  # pydicom
    from ..io.dicom.seg import write_dicom_seg  # highdicom
    from ..io.dicom.segment_codes import CLASSES as SEGMENTS
    from ..io.dicom.sources import read_sources

    depends_on = json.dumps([models, intensity, scan.facts.get("series_id")], sort_keys=True)
    maker = Maker(version=models["version"], depends_on=depends_on, synthetic=models["synthetic"])
    try:
        write_dicom_seg(classes, read_sources(scan), path, maker, SEGMENTS, "classes SEG")
    except UserError as error:
        return [Note("no_dicom_seg", f"No DICOM SEG was written: {error}", "warning")]
    return []


def _describe_models(infection: Segmenter | Path, classifier: Classifier) -> dict[str, Any]:
    """Say which weights made the result; demonstration weights if one of them is."""
    metadata = classifier.metadata
    if isinstance(infection, Segmenter):
        given = describe_model(infection)
    else:
        given = {"mask": infection.name, "mask_sha256": sha256(infection), "synthetic": False}
    classes = {
        "weights": classifier.weights.name,
        "weights_sha256": metadata["sha256"],
        "network": metadata["network"]["name"],
        "preprocessing": metadata["preprocessing"],
        "backend": classifier.backend.describe(),
        "synthetic": bool(metadata["data"].get("synthetic")),
        "trained_on": metadata["data"].get("name"),
    }
    return {
        "version": bundle_version(),
        "synthetic": given["synthetic"] or classes["synthetic"],
        "infection": given,
        "classes": classes,
    }
