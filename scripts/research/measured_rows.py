"""Rows of a measurement that can be stopped, and the settings that they were measured with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..files import read_json, write_atomic, write_json

ROWS, SETTINGS = "rows.csv", "settings.json"


def kept_rows(out: str | Path, **settings: Any) -> list[dict[str, Any]]:
    """Return the rows that an earlier call left in a folder, and keep the settings beside them.

    Raises:
        UserError: if they were measured with other settings, or nothing says with which.
    """
    rows, record = Path(out) / ROWS, Path(out) / SETTINGS
    if not rows.exists():
        write_json(record, settings)
        return []
    began = read_json(record) if record.exists() else {}
    if changed := [key for key in settings if key not in began or began[key] != settings[key]]:
        raise UserError(f"{rows}: was measured with another {', another '.join(changed)}; expected: another OUT")
    return [{str(key): value for key, value in row.items()} for row in pd.read_csv(rows).to_dict("records")]


def keep_rows(out: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all rows measured so far."""
    write_atomic(Path(out) / ROWS, lambda path: pd.DataFrame(rows).to_csv(path, index=False))
