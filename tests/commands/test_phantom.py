"""`python -m scripts phantom`: what it tells the user."""

from __future__ import annotations

from scripts.commands.phantom import phantom
from scripts.data.phantom.dataset import plan_case


def test_command_says_what_it_wrote(tmp_path, capsys):
    phantom(tmp_path / "set", cases=4, seed=2, size=48, slices=8)
    printed = capsys.readouterr()
    assert len(list((tmp_path / "set").rglob("*.nii.gz"))) == 12
    lines = printed.out.splitlines()
    for number, line in enumerate(lines[:4], start=1):
        case = plan_case(number, 2, 48, 8)
        assert line.startswith(case.name)
        assert " x ".join(map(str, case.shape)) in line
        assert case.orientation in line
        assert ("infected" in line) == case.infected
    assert "tilted" in lines[2]
    assert "4 cases" in lines[4]
    assert "Synthetic" in lines[4]
    assert "4/4" in printed.err  # the progress bar
