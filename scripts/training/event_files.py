"""TensorBoard's event files of a run that is resumed."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..files import write_atomic

logger = logging.getLogger(__name__)


def forget_after(folder: Path, moment: float) -> None:
    """Remove the events of epochs that a resumed run repeats, so that no curve shows them twice.

    TensorBoard's own `purge_step` cannot do it: iterations and epochs count in one folder. The time
    of an event can: those later than `moment`, in seconds since 1970, go. The folder may be absent.
    """
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        records = list(_records(path))
        kept = [record for record, opens, written in records if opens or written <= moment]
        if len(kept) < len(records):
            write_atomic(path, partial(_write, kept))
            logger.info(f"{path}: {len(records) - len(kept)} events of repeated epochs removed")


def _records(path: Path) -> Iterator[tuple[bytes, bool, float]]:
    """Yield complete records, whether each opens a file, and its time.

    A killed process may leave half a record. A file that is open now holds nothing else yet.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for record in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(record)
        yield record, event.HasField("file_version"), event.wall_time


def _write(records: list[bytes], path: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
        writer.flush()
