from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Fault, Job, run


@pytest.mark.parametrize(
    ("name", "kills", "disks"),
    [
        ("publish", 1, 1),
        ("segment", 2, 1),
        pytest.param("training", 8, 6, marks=pytest.mark.slow),
    ],
)
def test_a_fault_leaves_nothing_partial_and_the_same_command_ends_as_if_there_had_been_none(
    name: str, kills: int, disks: int, tmp_path: Path
) -> None:
    said: list[str] = []
    trials = run(tmp_path, [name], kills, disks, seed=0, say=said.append)
    assert len(trials) == kills + disks
    assert not [line for line in said if line.startswith("FINDING")], "\n".join(said)


def copied(out: Path, careful: bool) -> tuple[int, str]:
    """Write a file in two steps, to its place or beside it."""
    out.mkdir(exist_ok=True)
    path = out / ("beside" if careful else "text")
    try:
        path.write_text("whole")
        (out / "log").write_text("")
        path.rename(out / "text")
    except OSError:
        path.unlink(missing_ok=True)
        return 2, "error: disk full"
    return 0, ""


def read(out: Path) -> str:
    return (out / "text").read_text()


def partial_text(out: Path, _: object) -> list[str]:
    return ["text"] if (out / "text").exists() and not (out / "log").exists() else []


@pytest.mark.parametrize("careful", [True, False])
def test_the_campaign_finds_what_is_partial(careful: bool, tmp_path: Path) -> None:
    job = Job("copy", partial(copied, careful=careful), read, partial_text)
    campaign = Campaign(tmp_path)
    campaign.measure(job)
    assert job.writes == 4  # folder, text, log, its place
    assert (job.expected, job.largest) == ("whole", 5)
    found = [bool(campaign.disturb(job, Fault(kill_at=number)).findings) for number in range(1, 5)]
    assert found == ([False] * 4 if careful else [False, False, True, False])
    assert [campaign.disturb(job, Fault(full_at=number)).findings for number in (2, 3)] == [[], []]
