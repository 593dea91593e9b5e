"""Arguments and options that several commands share, with their help."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Data = Annotated[Path, Argument(help="Data set that `prepare` wrote.")]
Limit = Annotated[
    list[str] | None,
    Option(metavar="NAME=NUMBER", help="Raise a limit that a refusal named, e.g. voxels=4e9; may be repeated."),
]
Out = Annotated[Path, Argument(help="Folder to write.")]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1 or mps; default: the first that is available.")]
Intensity = Annotated[
    str,
    Option(help="auto (as the weights state), hu, or window:LO,HI for an export mapped from that window in HU."),
]
Backend = Annotated[str, Option(help="What applies the network: auto, torch or openvino.")]
Model = Annotated[str, Option(help="Shipped weights: compact, full or auto; auto: full on CUDA if it is no worse.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what an earlier call wrote.")]
Precision = Annotated[str, Option(help="auto, fp32 or bf16; auto: bf16 where the processor computes in it.")]
Pdf = Annotated[bool, Option("--pdf", help="Write the report as a PDF too; of DICOM also as a DICOM object.")]
Sc = Annotated[bool, Option("--sc", help="DICOM input: write the report's pictures as DICOM images too.")]
Series = Annotated[
    str | None, Option(metavar="NUMBER|ID|UID", help="Which DICOM series, where a folder holds several CT scans.")
]
SmallestLesion = Annotated[
    float | None,
    Option("--smallest_lesion_mm3", help="Leave out lesions below this volume in mm3; default: the metadata's."),
]
Sr = Annotated[bool, Option(help="DICOM input: write the measurements as a DICOM SR too.")]
Threshold = Annotated[float | None, Option(help="Decision threshold, a probability; default: the metadata's.")]
Truth = Annotated[Path | None, Option(help="Reference mask on the scan's grid, to outline too.")]
Views = Annotated[
    int | None, Option(metavar="1|2|4", help="Views in place of --flips: 1 is none, 2 the mirror image, 4 all flips.")
]
Volume = Annotated[int | None, Option(help="Which volume of a 4-D file, from 1.")]


def limits_of(words: Sequence[str] | None) -> AbstractContextManager[None]:
    """Let the limits of `--limit` hold in a block; UserError for a word that is none."""
    from ..io.limits import limited, parse_limits

    return limited(parse_limits(words or ()))


def separated(values: Sequence[str] | None) -> list[str]:
    """Split the values of an option that may be repeated, or hold several between commas.

    >>> separated(["a, b", "c"])
    ['a', 'b', 'c']
    """
    return [part.strip() for value in values or () for part in value.split(",")]
