"""Volumes of one's own that 3D Slicer sends, kept until they expire."""

import time
from pathlib import Path

from monailabel.utils.sessions import SessionInfo, Sessions


class LastingSessions(Sessions):
    """Sessions of which one that a killed server left unfinished hinders no start.

    MONAI Label looks for expired ones when it starts, and ends at the first without notes.
    """

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """Return a session, None if there is none or its notes are half-written."""
        try:
            return super().get_session(session_id, update_ts, fetch_cache)
        except ValueError:
            return None

    def remove_expired(self) -> int:
        """Remove what has expired, and what was left unfinished as long ago; return how many."""
        folders = [one for one in Path(self.store_path).glob("*") if one.is_dir() and self._has_expired(one)]
        for folder in folders:
            self.remove_session(folder.name)
        return len(folders)

    def _has_expired(self, folder: Path) -> bool:
        found = self.get_session(folder.name, update_ts=False, fetch_cache=False)
        if found is None and not folder.exists():  # its volume was gone, and MONAI Label removed the rest
            return False
        used, expiry = (found.last_access_ts, found.expiry) if found else (folder.stat().st_mtime, self.expiry)
        return bool(0 < expiry < time.time() - used)
