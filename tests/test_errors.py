from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.errors import UserError, find_user_error


def test_the_mistake_is_found_below_wrappers() -> None:
    mistake = UserError("a.nii: empty")
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = mistake
    assert find_user_error(wrapped) is mistake
    assert find_user_error(ValueError("x")) is None


def test_a_wrapped_mistake_is_the_last_line(bundle_root: Path) -> None:
    """In the runner's process `import scripts` does it (tests/test_import.py: in no other)."""
    code = "from scripts.errors import UserError, end_tracebacks_with_user_errors\nend_tracebacks_with_user_errors()\n"
    code += "try:\n    raise UserError('a.nii: empty')\nexcept UserError as e:\n    raise RuntimeError('x') from e\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=bundle_root, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: a.nii: empty"
