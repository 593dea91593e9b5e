"""How a DICOM SEG names what is outlined: codes as (value, scheme, meaning).

PS3.16: category from CID 7150, region from CID 4. The type of what `segment` outlines is from CID
7159 (lesion segmentation types); a disease such as pneumonia is no type of segment there, what is
outlined is the altered tissue. The types of what `classify` tells apart are from CID 6104 (abnormal
opacity) and, where DICOM has no code, from SNOMED CT.
"""

from dataclasses import dataclass

Code = tuple[str, str, str]
CATEGORY: Code = ("49755003", "SCT", "Morphologically Altered Structure")
REGION: Code = ("39607008", "SCT", "Lung")
_USE = "Research use only, not a medical device."


@dataclass(frozen=True)
class Segment:
    """What a segment is called, and how it is shown.

    Attributes:
        label: its name in a viewer's list.
        type: its type as a code.
        colour: RGB.
        description: what made it and what it can tell.
    """

    label: str
    type: Code
    colour: tuple[int, int, int]
    description: str


OPACITY = Segment(
    "lung opacity, AI",
    ("409774005", "SCT", "Inflammation"),
    (255, 159, 28),  # the preview's
    "Opacity of the lung as outlined by a neural network that was trained on CT of COVID-19 infection; the network "
    f"cannot tell its cause. {_USE}",
)
CLASSES = (
    Segment(
        "ground glass opacity, AI",
        ("112120", "DCM", "Ground glass opacity"),
        (255, 214, 92),
        f"Ground glass inside of an opacity of the lung, as told apart by a neural network. {_USE}",
    ),
    Segment(
        "consolidation, AI",
        ("95436008", "SCT", "Lung consolidation"),
        (214, 69, 65),
        f"Consolidation inside of an opacity of the lung, as told apart by a neural network. {_USE}",
    ),
)
"""In the order of the values of `classes.nii.gz`, from 1."""
