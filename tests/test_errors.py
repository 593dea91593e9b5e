from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.errors import EXTRAS, MachineError, UserError, find_user_error, user_errors
from scripts.networks.registry import create_network


def test_the_mistake_is_found_below_wrappers() -> None:
    mistake = UserError("a.nii: empty")
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = mistake
    assert find_user_error(wrapped) is mistake
    assert find_user_error(ValueError("x")) is None


def test_a_value_that_an_argument_cannot_have_is_a_mistake_and_a_value_error() -> None:
    with pytest.raises(ValueError, match="fusion is 'foo'") as caught:
        create_network("resunet", base_width=4, fusion="foo")
    assert find_user_error(caught.value) is caught.value


def test_a_mistake_is_one_line_and_each_of_a_list_another_whatever_names_hold() -> None:
    assert str(UserError("a\x0cb\n\x1b[2J.nii: é")) == r"a\x0cb\n\x1b[2J.nii: é"
    assert str(UserError("2 problems:", "a\u2028.nii", "b\r\n")) == "2 problems:\n  a\\u2028.nii\n  b\\r\\n"


def test_a_size_too_small_for_a_network_is_a_mistake() -> None:
    """As torch says it, of the last batch of a training."""
    with pytest.raises(ValueError, match="Expected more than 1 value") as caught:
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    assert "a larger one, or a batch_size" in str(find_user_error(caught.value))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 5.12 "
                "GiB is free. Including non-PyTorch memory, this process has 2.1 GiB memory in use. Of the allocated "
                "memory 1.2 GiB is allocated by PyTorch"
            ),
            "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 5.12 GiB "
            "is free",
        ),
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with ..."), "CUDA error: out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["allocator", "runtime", "library"],
)
def test_a_gpu_whose_memory_is_full_is_one_line(said: RuntimeError, kept: str) -> None:
    found = find_user_error(said)
    assert isinstance(found, MachineError)
    assert str(found) == (
        f"the memory of the GPU is full ({kept}); expected: a smaller batch_size or fewer processes on the GPU, "
        "another GPU, or --device cpu"
    )
    assert find_user_error(RuntimeError("CUDA error: an illegal memory access was encountered")) is None


@pytest.mark.parametrize("extra", ["dicom", "openvino", "train", "cluster", "pacs"])
def test_every_package_of_an_extra_is_known(extra: str, bundle_root: Path) -> None:
    lines = (bundle_root / f"requirements-{extra}.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert list(EXTRAS.values()).count(extra) == len(packages) > 0


def test_an_error_is_no_mistake_for_an_earlier_one_of_the_caller() -> None:
    """A program that handles a mistake, and then fails, sees its own failure."""

    @user_errors()
    def fail() -> None:
        raise FileNotFoundError("a.nii")

    try:
        raise UserError("b.nii: empty")
    except UserError:
        with pytest.raises(FileNotFoundError, match=r"a\.nii"):
            fail()


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
