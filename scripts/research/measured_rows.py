"""Rows of a measurement that can be stopped, and the settings that they were measured with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..files import read_json, write_atomic, write_json

ROWS, SETTINGS = "rows.csv", "settings.json"


def goes_on(out: str | Path, name: str, **settings: Any) -> bool:
    """Return whether an earlier call left a file or folder in OUT, and keep the settings beside it.

    Raises:
        UserError: if it was made with other settings, or nothing says with which.
    """
    made, record = Path(out) / name, Path(out) / SETTINGS
    if not made.exists():
        write_json(record, settings)
        return False
    began = read_json(record) if record.exists() else {}
    if changed := [key for key in settings if key not in began or began[key] != settings[key]]:
        raise UserError(f"{made}: was measured with another {', another '.join(changed)}; expected: another OUT")
    return True


def kept_rows(out: str | Path, **settings: Any) -> list[dict[str, Any]]:
    """Return the rows that an earlier call left in a folder, see `goes_on`."""
    if not goes_on(out, ROWS, **settings):
        return []
    rows = pd.read_csv(Path(out) / ROWS)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def keep_rows(out: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all rows measured so far."""
    write_atomic(Path(out) / ROWS, lambda path: pd.DataFrame(rows).to_csv(path, index=False))
