"""The one exception that stands for a user's mistake, and how it reaches the user."""

import errno
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from .messages import escaped


class UserError(Exception):
    """A mistake that the user can mend: wrong use or unusable input.

    The message is one line that says which file, what was found and what is expected; further
    arguments are a list, one line each. What a file's name or content brings along is escaped.
    `python -m scripts` prints it without a traceback and exits with code 2; under `monai.bundle
    run` it is the last line.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        # Not at import, which must change nothing, and not in `training.runner.begin` alone:
        # configs are parsed before it, and MONAI's other commands have no `run`.
        if in_bundle_runner() and sys.excepthook is sys.__excepthook__:
            sys.excepthook = _end_traceback_with_user_error

    def __str__(self) -> str:
        """Return the message for a terminal, a log or a manifest."""
        return "\n  ".join(escaped(str(line)) for line in self.args)


class SettingError(UserError, ValueError):
    """A value that an argument cannot have, whether a user's config or a program gave it."""


class MachineError(UserError):
    """A disk or an installation that does not allow what was asked, whatever the input is like."""


_DISK = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "ENOTDIR", "EISDIR", "EEXIST")
    if hasattr(errno, name)
)
"""What a disk says that cannot be written, or is full."""


FULL = r"\b(CUDA|HIP|MPS)\b.*\bout of memory|_STATUS_ALLOC_FAILED"
"""What torch says where the memory of a GPU does not suffice."""


EXTRAS = {
    **dict.fromkeys(("pydicom", "highdicom", "reportlab"), "dicom"),
    **dict.fromkeys(("ignite", "fire", "yaml", "tensorboard"), "train"),
    "openvino": "openvino",
    "distributed": "cluster",
    **dict.fromkeys(("pynetdicom", "dicomweb_client"), "pacs"),
}
"""Packages that an installation may lack, and the extra that brings them."""


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an exception, what it was raised from or during, and so on to the root."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the user's mistake at the root of a chain of exceptions, or None.

    A disk that cannot be written, a name that is too long for it, a package of an extra that is not
    installed, a size too small for a network, and a GPU whose memory is full are mistakes, too.
    """
    other = None
    for one in causes(error):
        if isinstance(one, UserError):
            return one
        other = _disk_error(one) or _missing_extra(one) or _single_value(one) or _full_gpu(one) or other
    return other


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise `UserError` where a block meets a disk that cannot be written, or lacks an extra."""
    try:
        yield
    except (OSError, ModuleNotFoundError) as error:
        mistake = _disk_error(error) or _missing_extra(error)  # not of the caller's chain, see `find_user_error`
        if mistake is None:
            raise
        raise mistake from error


@contextmanager
def ended_by_mistakes() -> Iterator[None]:
    """End a script at a user's mistake, in one line and with exit code 2."""
    try:
        yield
    except Exception as error:
        mistake = find_user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None


def _missing_extra(error: BaseException) -> MachineError | None:
    name = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in EXTRAS:
        return None
    expected = f"expected: pip install 'lung-infection-ct[{EXTRAS[name]}]'"
    return MachineError(f"the package {name} is not installed; {expected}")


def _single_value(error: BaseException) -> UserError | None:
    """Of BatchNorm, where the last batch is one image that the network halved to one pixel."""
    if not (isinstance(error, ValueError) and str(error).startswith("Expected more than 1 value per channel")):
        return None
    found = "of a batch of one image a single pixel is left in this network, nothing to normalise over"
    return UserError(f"spatial_size: {found}; expected: a larger one, or a batch_size that leaves no batch of one")


def _full_gpu(error: BaseException) -> MachineError | None:
    """Of torch's allocator, whose advice for programmers is left out, of CUDA and its libraries."""
    if not (isinstance(error, RuntimeError) and re.search(FULL, str(error))):
        return None
    found = re.split(r"\. (?=Including|Of the|Use )", str(error).splitlines()[0])[0]
    expected = "a smaller batch_size or fewer processes on the GPU, another GPU, or --device cpu"
    return MachineError(f"the memory of the GPU is full ({found}); expected: {expected}")


def _disk_error(error: BaseException) -> MachineError | None:
    expected = "expected: a folder that can be written, on a disk with space left"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return MachineError(f"{str(error.filename)[:200]}...: {error.strerror}; expected: a shorter name")
    if isinstance(error, OSError) and error.errno in _DISK:
        place = error.filename2 or error.filename
        return MachineError(f"{place or 'the disk'}: {error.strerror}; {expected}")
    if isinstance(error, RuntimeError) and "PytorchStreamWriter failed" in str(error):
        return MachineError(f"the disk: weights could not be written; {expected}")
    return None


def in_bundle_runner() -> bool:
    """Whether this process is `python -m monai.bundle`, alone or below torchrun."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "monai.bundle.__main__"


def refuse_empty(words: Sequence[str]) -> None:
    """Refuse a command line with an empty word, as of a shell's variable that is not set.

    It would pass for a default, or for the current folder.

    Raises:
        UserError: says where it stands.
    """
    for before, word in zip(("", *words), words, strict=False):
        if word == "" or re.fullmatch(r"--?[A-Za-z][^\s=]*=", word):
            place = f"in {word}" if word else f"after {before}" if before else "first of all"
            raise UserError(f"an empty word {place}; expected: a value, or the option left out")


def _end_traceback_with_user_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Repeat the user's mistake below the traceback of MONAI's runner."""
    sys.__excepthook__(kind, error, traceback)
    mistake = find_user_error(error)
    if mistake is not None and mistake is not error:
        print(f"error: {mistake}", file=sys.stderr)
