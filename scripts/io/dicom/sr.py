"""The measurements as a DICOM Structured Report, on the slices and the SEG that they belong to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom.sr as sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from ...errors import UserError
from .derived import MANUFACTURER, Maker, long_string, save_object
from .segment_codes import CATEGORY, OPACITY, REGION
from .sources import Sources

_SCHEME = "99LUNGINFECTION"  # of what no standard has a code for; 99 begins private schemes (PS3.16 8.2)
_CHEST_CT = sr.CodedConcept("24627-2", "LN", "CT Chest")
_ML = sr.CodedConcept("mL", "UCUM", "mL")
_SIDES = {"total": codes.SCT.RightAndLeft, "right": codes.SCT.Right, "left": codes.SCT.Left}
_LUNG = sr.CodedConcept(*REGION)
_LOBES = {
    "left_upper": ("44714003", "SCT", "Upper lobe of left lung"),
    "left_lower": ("41224006", "SCT", "Lower lobe of left lung"),
    "right_upper": ("42400003", "SCT", "Upper lobe of right lung"),
    "right_middle": ("72481006", "SCT", "Middle lobe of right lung"),
    "right_lower": ("266005", "SCT", "Lower lobe of right lung"),
}


def write_dicom_sr(measures: Mapping[str, Any], seg: Path, sources: Sources, path: Path, maker: Maker) -> Path:
    """Write a Comprehensive SR of TID 1500, a new series in the scan's study.

    Measurement groups: the infection with its volume and density classes, and the CT severity score
    where lobes are known; each lung and both, and each lobe, with volume and infected percentage
    where they are known; each listed lesion with its volume.
    Infection and lesions refer to the SEG's segment and to the source slices that they lie on.

    Args:
        measures: as in `report.json`, whose numbers are repeated.
        seg: what `write_dicom_seg` wrote for the same scan.
        sources: of the scan, see `read_sources`.
        path: the file to write.
        maker: the software and what the measures depend on.

    Raises:
        UserError: if the voxel size is unknown or the scan's files lack what an SR must repeat.
    """
    if "infection_ml" not in measures["infection"]:
        name = sources.scan.path.name
        raise UserError(f"{name}: the voxel size is unknown; expected for a DICOM SR: volumes in ml")
    with sources.refused("SR"):
        segmentation = dcmread(seg, stop_before_pixels=True)
        groups = _Groups(sources, segmentation, maker).all(measures)
        report = _report(groups, [*sources.headers, segmentation], sources.headers, maker)
        return save_object(report, path)


def _report(
    groups: Sequence[Any], evidence: Sequence[Dataset], sources: Sequence[Dataset], maker: Maker
) -> sr.ComprehensiveSR:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=maker.uid(sources, "device"), name=MANUFACTURER, model_name=maker.algorithm, manufacturer_name=MANUFACTURER
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_CHEST_CT,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    scheme = CodingSchemeIdentificationItem(
        _SCHEME, name=f"Measures of {MANUFACTURER}", version=long_string(maker.version)[:16]
    )
    return sr.ComprehensiveSR(
        evidence=evidence,
        content=content[0],
        is_complete=True,
        coding_schemes=[scheme],
        **maker.attributes(sources, "SR"),
    )


class _Groups:
    """Build measurement groups that refer to one SEG and its source slices."""

    def __init__(self, sources: Sources, seg: Dataset, maker: Maker) -> None:
        self._sources, self._seg, self._maker = sources, seg, maker
        self._named = [_source(item) for item in seg.PerFrameFunctionalGroupsSequence]
        self._axial = sources.scan.axial_slices()
        self._algorithm = {
            "name": maker.algorithm,
            "version": maker.version,
            "family": codes.DCM.ArtificialIntelligence,
            "parameters": [
                "research use only, not a medical device",
                "trained on synthetic scans only" if maker.synthetic else "trained on CT of COVID-19 infection",
                *maker.parameters,
            ],
        }

    def all(self, measures: Mapping[str, Any]) -> list[Any]:
        """Return the groups of the infection, the lungs, the lobes and the lesions."""
        lungs = measures["lungs"]
        parts = {part: lungs[part] for part in _SIDES if lungs[part]}
        lobes = (measures["lobes"] or {"parts": {}})["parts"]
        lesions = enumerate(measures["lesions"]["lesions"], 1)
        return [
            self._infection(measures),
            *(self._lung(part, found) for part, found in parts.items()),
            *(self._lobe(name, found) for name, found in lobes.items() if found),
            *(self._lesion(number, lesion) for number, lesion in lesions),
        ]

    def _infection(self, measures: Mapping[str, Any]) -> Any:
        found = [_volume(measures["infection"]["infection_ml"])]
        for one in measures["density"].get("classes", []):
            low, high = one["from_hu"], one["below_hu"]
            limits, code = _limits(low, high), f"{'' if low is None else low}:{'' if high is None else high}"
            share = one["infection_percent"]
            found += [
                _private(f"ml:{code}", f"Volume of opacity {limits}", one["volume_ml"], _ML),
                _private(f"pct:{code}", f"Part of the opacity {limits}", share, codes.UCUM.Percent),
            ]
        if measures["lobes"] and (score := measures["lobes"]["score_of_25"]) is not None:
            found.append(_private("score_25", "CT severity score of five lobes, of 25", score, codes.UCUM.NoUnits))
        if statistics := measures["density"].get("statistics"):
            mean, unit = statistics["mean_hu"], codes.UCUM.HounsfieldUnit
            name = codes.DCM.AttenuationCoefficient
            found.append(sr.Measurement(name, mean, unit, derivation=codes.SCT.Mean))
        return self._roi("Lung opacity", None, [sr.FindingSite(_LUNG)], found)

    def _lung(self, part: str, found: Mapping[str, Any]) -> Any:
        name = {"total": "Both lungs", "right": "Right lung", "left": "Left lung"}[part]
        return self._organ(name, _LUNG, sr.FindingSite(_LUNG, laterality=_SIDES[part]), _amounts(found, "lung"))

    def _lobe(self, lobe: str, found: Mapping[str, Any]) -> Any:
        code, values = sr.CodedConcept(*_LOBES[lobe]), _amounts(found, "lobe")
        if (score := found["score_of_5"]) is not None:
            values.append(_private("score_5", "CT severity score of the lobe, of 5", score, codes.UCUM.NoUnits))
        return self._organ(code.meaning, code, sr.FindingSite(code), values)

    def _organ(self, name: str, finding: Any, site: sr.FindingSite, values: Sequence[Any]) -> Any:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(name),
            algorithm_id=sr.AlgorithmIdentification(**self._algorithm),
            finding_type=finding,
            finding_sites=[site],
            measurements=values,
        )

    def _lesion(self, number: int, lesion: Mapping[str, Any]) -> Any:
        first, last = lesion["slices_from_inferior"]
        slices = None if self._axial is None else self._axial[first - 1 : last]
        side = _SIDES.get("total" if lesion["side"] == "both lungs" else lesion["side"])
        sites = [sr.FindingSite(_LUNG, laterality=side)] if side else []
        return self._roi(f"Lesion {number}", slices, sites, [_volume(lesion["volume_ml"])])

    def _roi(self, name: str, slices: Sequence[int] | None, sites: Sequence[Any], values: Sequence[Any]) -> Any:
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(name),
            referenced_segment=self._segment(slices),
            finding_category=sr.CodedConcept(*CATEGORY),
            finding_type=sr.CodedConcept(*OPACITY.type),
            finding_sites=sites or None,
            algorithm_id=sr.AlgorithmIdentification(**self._algorithm),
            measurements=values,
        )

    def _segment(self, slices: Sequence[int] | None) -> sr.ReferencedSegment:
        """Refer to the segment and to stored slices; None: to all slices that the SEG names."""
        named = self._named if slices is None else [self._sources.image(k) for k in sorted(slices)]
        frames: dict[str, list[int]] = {}
        for instance, frame in named:
            frames.setdefault(instance, []).extend([] if frame is None else [frame])
        sop_class = str(self._sources.first.SOPClassUID)
        images = [sr.SourceImageForSegmentation(sop_class, instance, of or None) for instance, of in frames.items()]
        seg = str(self._seg.SOPClassUID), str(self._seg.SOPInstanceUID)
        return sr.ReferencedSegment(*seg, segment_number=1, source_images=images)

    def _tracking(self, name: str) -> sr.TrackingIdentifier:
        return sr.TrackingIdentifier(uid=self._maker.uid(self._sources.headers, "tracking", name), identifier=name)


def _source(frame: Dataset) -> tuple[str, int | None]:
    item = frame.DerivationImageSequence[0].SourceImageSequence[0]
    number = item.get("ReferencedFrameNumber")
    return str(item.ReferencedSOPInstanceUID), None if number is None else int(number)


def _volume(ml: float) -> sr.Measurement:
    return sr.Measurement(codes.SCT.Volume, ml, _ML)


def _amounts(found: Mapping[str, Any], organ: str) -> list[sr.Measurement]:
    values = [
        _volume(found[f"{organ}_ml"]),
        _private("opacity_volume", f"Volume of opacity in the {organ}", found["infection_ml"], _ML),
    ]
    if (share := found["infected_percent"]) is not None:
        values.append(_private("opacity_pct", f"Part of the {organ} with opacity", share, codes.UCUM.Percent))
    return values


def _private(code: str, meaning: str, value: float, unit: Any) -> sr.Measurement:
    return sr.Measurement(sr.CodedConcept(code, _SCHEME, meaning), value, unit)


def _limits(low: int | None, high: int | None) -> str:
    if low is None:
        return f"below {high} HU"
    return f"of {low} HU and above" if high is None else f"of {low} to below {high} HU"
