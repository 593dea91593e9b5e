"""Write the JSON Schemas of files that are read and written: `python docs/write_schemas.py`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.data.layouts.schema import DatalistFile
from scripts.files import write_atomic
from scripts.inference.metadata_schema import Metadata
from scripts.pipeline.manifest_schema import ManifestContent
from scripts.schema import json_schema
from scripts.version import BUNDLE

SCHEMAS = {"checkpoint_metadata": Metadata, "datalist": DatalistFile, "manifest": ManifestContent}
"""By name of the file in docs/schemas."""


def text_of(name: str) -> str:
    """Return the text of a schema's file."""
    return json.dumps(json_schema(SCHEMAS[name], name), indent=2) + "\n"


if __name__ == "__main__":
    for name in SCHEMAS:
        write_atomic(BUNDLE / "docs/schemas" / f"{name}.json", lambda path, name=name: path.write_text(text_of(name)))
