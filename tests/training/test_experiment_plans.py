"""What the experiments of configs/experiments say."""

from __future__ import annotations

import re

import pytest

from scripts.errors import UserError
from scripts.training.experiment_plans import EXPERIMENTS, Variant, read_experiment
from scripts.version import BUNDLE


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
def test_every_experiment_names_files_that_there_are_and_figures_in_percent(name: str) -> None:
    experiment = read_experiment(name)
    assert len(experiment.variants) > 1
    assert bool(experiment.source) == bool(experiment.protocol) == any(one.published for one in experiment.variants)
    for variant in experiment.variants:
        assert "," not in variant.name  # --variants parts them by commas
        for file in variant.files:
            assert (BUNDLE / file).is_file(), file
        assert all(0 <= value <= 100 for value in variant.published.values())


@pytest.mark.parametrize(("one", "other"), [("U-Net", "U-Net++"), ("ESM + AFM", "ESM* + AFM")])
def test_variants_have_folders_of_their_own(one: str, other: str) -> None:
    first, second = (Variant(name, [], {}, {}).folder for name in (one, other))
    assert first != second
    assert re.fullmatch(r"\w+", first)


def test_published_figures_are_those_of_the_paper() -> None:
    table3, table4 = read_experiment("table3"), read_experiment("table4")
    best = {variant.name: variant for variant in table3.variants}["ResUNet_C_2"]
    assert (best.published["dice"], best.published["dice_sd"]) == (89.93, 0.09)
    assert best.settings == {"network_def#edge_stages": [1, 2], "network_def#mask_stages": [3, 4, 5]}
    assert table4.variants[0].name == "baseline"
    assert table4.variants[0].published == {"dice": 85.96, "dice_sd": 0.03}


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"experiment is 'table9'; accepted: .*table3, table4"):
        read_experiment("table9")
    with pytest.raises(UserError, match="variants ResUNet; accepted, separated by commas: ResUNet_C_1; "):
        read_experiment("table3", ["ResUNet"])


def test_rows_of_other_experiments_are_taken_over_with_the_shared_settings() -> None:
    paper, table2, table4 = (read_experiment(name) for name in ("paper", "table2", "table4"))
    assert [one.name for one in paper.variants[:5]] == ["baseline", "ESM", "ASSM", "AFM", "ResUNet_C_1"]
    assert paper.variants[3].settings == {"field_of_view": "lungs", **table4.variants[3].settings}
    (unet,) = read_experiment("paper", ["U-Net"]).variants
    assert (unet.files, unet.published) == (table2.variants[0].files, table2.variants[0].published)
    assert unet.settings == {"field_of_view": "lungs"}
