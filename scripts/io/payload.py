"""The bytes of a file's voxels: mapped if plain, unpacked and verified if compressed."""

import gzip
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .limits import check_limit

_CHUNK = 1 << 24
GZIP_MAGIC = b"\x1f\x8b"
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def is_gzipped(path: Path) -> bool:
    """Whether a file is gzip by its first bytes, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def open_payload(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking gzip by content."""
    return gzip.open(path, "rb") if is_gzipped(path) else path.open("rb")  # type: ignore[return-value]


def unpacked_length(path: Path, expected: int, least: int) -> int:
    """Return how many bytes a file unpacks to; UserError for a cut off or damaged stream.

    The length that gzip wrote behind the data is believed where it is the expected one. Otherwise
    the stream is unpacked: it may have several members, be cut off, or hold more than 4 GiB. It is
    refused where it cannot hold `least` bytes, or goes on too long behind them.
    """
    if not is_gzipped(path):
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, 2)
        written = int.from_bytes(file.read(4), "little")  # modulo 2**32
    if written == expected % 2**32:
        return expected
    check_ratio(path, least)
    length = 0
    try:
        with gzip.open(path, "rb") as stream:
            while chunk := len(stream.read(_CHUNK)):
                length += chunk
                check_trailing(path, length - least)
    except GZIP_ERRORS as error:
        raise damaged(path, length, error) from None
    return length


def check_ratio(path: Path, expected: int, offset: int = 0) -> None:
    """Refuse a header that states more bytes than a file's packed ones can hold."""
    packed = max(path.stat().st_size - offset, 1)
    check_limit(path, "ratio", -(-expected // packed), f"times as many bytes stated by the header as its {packed:,}")


def check_trailing(path: Path, behind: int) -> None:
    """Refuse a compressed file that goes on too long behind its voxels."""
    check_limit(path, "trailing_bytes", behind, "bytes or more behind its voxels")


def read_array(path: Path, dtype: np.dtype[Any], count: int, offset: int, total: int) -> NDArray[Any]:
    """Read `count` numbers that start at byte `offset` of the unpacked file.

    A plain file is memory-mapped. A gzip stream is read to its end, because only there its checksum
    is compared.

    Raises:
        UserError: for a file of less than `total` bytes, unpacked, or whose checksum is wrong.
    """
    if not is_gzipped(path):
        found = path.stat().st_size
        if found < total:
            raise UserError(f"{path}: {found} bytes; expected: {total}, as its header says; the file is cut off")
        return np.memmap(path, dtype, "r", offset, (count,))
    check_ratio(path, total)
    values = np.empty(count, dtype)
    read = _fill(path, values, offset)
    if read < total:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes that unpack to {read} and then end or break; "
            f"expected: {total} unpacked, as its header says; copy the file again"
        )
    return values


def damaged(path: Path, read: int, error: Exception) -> UserError:
    """What to tell of a gzip stream that cannot be unpacked."""
    size = path.stat().st_size
    found = f"{size} bytes, damaged gzip after {read} unpacked bytes ({error})"
    return UserError(f"{path}: {found}; expected: a complete file, copy it again")


def _fill(path: Path, values: NDArray[Any], offset: int) -> int:
    """Fill `values` from a gzip stream; return the number of good bytes, 0 for a broken end."""
    target = values.view(np.uint8).data
    read = 0
    try:
        with gzip.open(path, "rb") as stream:
            read = stream.seek(offset)
            for start in range(0, len(target), _CHUNK):
                read += stream.readinto(target[start : start + _CHUNK])
            voxels = read
            while rest := len(stream.read(_CHUNK)):
                read += rest
                check_trailing(path, read - voxels)
    except GZIP_ERRORS as error:
        raise damaged(path, read, error) from None
    return read


def verify_compressed(path: Path, offset: int, expected: int) -> None:
    """Unpack a zlib or gzip stream to nowhere and compare its length and checksum, else UserError.

    ITK reads on past a damaged stream and leaves the rest of the voxels as they are.
    """
    check_ratio(path, expected, offset)
    engine, read = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), 0
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := engine.unconsumed_tail or file.read(1 << 20):
                read += len(engine.decompress(chunk, _CHUNK))
                check_trailing(path, read - expected)
    except zlib.error as error:
        raise UserError(f"{path}: damaged after {read} unpacked bytes ({error}); expected: a complete file") from None
    if not engine.eof or read < expected:
        size = path.stat().st_size
        raise UserError(
            f"{path}: {size} bytes that unpack to {read}; expected: {expected} unpacked, as its header says; "
            "the file is cut off"
        )
