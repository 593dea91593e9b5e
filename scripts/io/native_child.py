"""Run ITK and GDCM for `native.py`: a program of its own, which a hostile file may end.

It is started by its path, without the package. A request is a line of JSON on standard input; the
answer is a line of JSON on standard output, and voxels as bytes behind it.
"""

import json
import os
import sys
import time
from typing import Any

import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray


def main() -> None:
    """Answer requests until the other process closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what native code prints is no answer
    os.dup2(nowhere, 2)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit(request["bytes"], request["seconds"])
        values: NDArray[Any] | None = None
        try:
            answer, values = (_inspect if request["inspect"] else _read)(request["path"], request["io"])
        except (RuntimeError, MemoryError) as error:
            answer = {"error": (str(error).strip() or type(error).__name__).splitlines()[-1].strip()}
        answers.write(json.dumps(answer).encode() + b"\n")
        if values is not None:
            answers.write(values.data)
        answers.flush()


def _limit(extra: int, seconds: int) -> None:
    """Let this process take so much more memory and processor time, where a system can limit it."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for what, soft in ((resource.RLIMIT_AS, held + extra), (resource.RLIMIT_CPU, int(time.process_time()) + seconds)):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _inspect(path: str, io: str) -> tuple[dict[str, Any], None]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(io)
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return {
        "size": reader.GetSize(),
        "origin": reader.GetOrigin(),
        "spacing": reader.GetSpacing(),
        "direction": reader.GetDirection(),
        "components": reader.GetNumberOfComponents(),
        "type": sitk.GetPixelIDValueAsString(reader.GetPixelID()),
    }, None


def _read(path: str, io: str) -> tuple[dict[str, Any], NDArray[Any]]:
    values = sitk.GetArrayFromImage(sitk.ReadImage(path, imageIO=io))
    return {"shape": values.shape, "dtype": values.dtype.str}, values


if __name__ == "__main__":
    main()
