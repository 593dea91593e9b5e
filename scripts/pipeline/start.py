"""Choose where cases are segmented: in this process, in several, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from .batch import Entries, segment_in_turn
from .inputs import ScanInput
from .job import Job, Progress, describe, identity


@contextmanager
def started(
    job: Job,
    cases: Sequence[ScanInput],
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Entries, dict[str, Any]]]:
    """Load the model, here or in the workers of a cluster.

    Args:
        job: model, settings and output folder.
        cases: the cases.
        workers: how many processes of this machine.
        scheduler: that of a Dask cluster, in place of this machine.
        progress: called with (case, slices done now, slices in all), in this process only.

    Yields:
        What does the cases, and the description of the run, both for `record`.

    Raises:
        UserError: if weights, settings or the cluster cannot be used.
    """
    if scheduler:
        from .cluster import Cluster

        with closing(Cluster(scheduler)) as cluster:
            agreed, description = cluster.prepare(job, cases[0])
            yield cluster.segment(agreed, cases), description
        return
    model = job.build()
    description = describe(model)
    if min(workers, len(cases)) > 1:
        from .processes import segment_in_processes

        agreed = replace(job, expected=identity(description))
        yield segment_in_processes(agreed, cases, min(workers, len(cases))), description
    else:
        yield segment_in_turn(model, cases, job.output, job.overwrite, progress), description
