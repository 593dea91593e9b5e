"""What `manifest.json` of a run of `segment` holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..schema import OpenRecord, Record

FORMAT = 1


def _folder_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError("the name of a folder")
    return name


class EntryContent(OpenRecord):
    """A case: what became of it."""

    name: str
    folder: Annotated[str, AfterValidator(_folder_name), Field(description="of its results, below the output folder")]
    status: Literal["waiting", "done", "found done", "refused", "failed"]
    source: Annotated[str, Field(description="the input")] = ""
    kind: Annotated[str, Field(description="a file, or DICOM")] = ""
    message: Annotated[str | None, Field(description="why it was refused or failed")] = None
    files: Annotated[list[str] | None, Field(description="of the results")] = None
    warnings: Annotated[int | None, Field(ge=0, description="their number in the report")] = None
    removed_voxels: Annotated[int | None, Field(ge=0, description="outside of the body and the lungs")] = None
    timings_s: Annotated[dict[str, float] | None, Field(description="seconds of each stage")] = None
    series: Annotated[str | None, Field(description="that was chosen with `--series`: number, id or UID")] = None
    volume: Annotated[int | None, Field(ge=1, description="that was chosen with `--volume`, from 1")] = None
    input_stamp: Annotated[
        str | None, Field(description="SHA-256 of name, bytes and time of change of the input's files")
    ] = None


class ManifestContent(Record):
    """A run: its model and settings, and every case."""

    format: Literal[1]
    created: Annotated[str, Field(description="ISO 8601, UTC")]
    finished: Annotated[str | None, Field(description="ISO 8601, UTC; null while cases are waiting")]
    model: dict[str, Any]
    settings: dict[str, Any]
    packages: dict[str, str]
    machine: dict[str, Any]
    cases: list[EntryContent]
    earlier: Annotated[list[EntryContent], Field(description="of earlier runs whose results are still there")]
    passed_over: Annotated[
        list[str], Field(default_factory=list, description="what was found in folders and is no input")
    ]
