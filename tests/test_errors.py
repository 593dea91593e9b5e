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


def test_a_wrapped_mistake_is_the_last_line_in_the_process_of_the_bundle_runner(bundle_root: Path) -> None:
    code = """
import sys
from importlib.machinery import ModuleSpec
sys.modules["__main__"].__spec__ = ModuleSpec("monai.bundle.__main__", None)
from scripts.errors import UserError
assert sys.excepthook is sys.__excepthook__
try:
    raise UserError("a.nii: empty")
except UserError as error:
    raise RuntimeError("x") from error
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=bundle_root, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: a.nii: empty"


def test_a_mistake_leaves_the_hook_of_any_other_process(monkeypatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    UserError("a.nii: empty")
    assert sys.excepthook is sys.__excepthook__
