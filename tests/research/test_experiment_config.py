"""What the experiments of configs/experiments say."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from scripts.errors import UserError
from scripts.research.experiment_config import EXPERIMENTS, Variant, experiment_names, read_experiment
from scripts.research.experiment_text import markdown
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
        by_class = [variant.published[name] for name in experiment.classes] or [variant.published]
        assert all(0 <= value <= 100 for figures in by_class for value in figures.values())


def test_figures_of_another_split_are_said_to_be_not_comparable() -> None:
    """Cases are split by slice, as in table 2 of Hu et al.; other sources do otherwise."""
    data = {"name": "x", "split": "slice", "seed": 0, "warnings": []}
    record = {"data": data, "protocol": "within", "datalist_sha256": None, "keep": "last", "budget": "b"}
    run = {"variant": "U-Net", "seed": 0, "fold": 0, "cases": 1, "version": "1", "machine": None, "dice": 0.5}
    row = {"runs": 1, "dice": 50.0, "dice_sd": math.nan, **dict.fromkeys(("volume_dice", "picture_dice"), math.nan)}
    row |= {"slice_dice": 50.0, "slice_dice_sd": math.nan}
    table = pd.DataFrame([row], index=["U-Net"])
    said = {}
    for name in experiment_names():
        text = " ".join(markdown(read_experiment(name), table, pd.DataFrame([run]), record).split())
        said[name] = re.findall(r"The columns are ([\w, ]+)\.", text)
    alike = {name for name, words in said.items() if words == ["alike in how cases were split, not otherwise"]}
    assert alike == {"table2", "table3", "table4", "table5", "paper"}
    assert said["cares"] == said["infnet"] == said["fv"] == said["table6"] == ["not comparable"]


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


@pytest.mark.parametrize("name", ["table4", "paper"])
def test_modules_supervise_the_stages_that_the_paper_gives_them(name: str) -> None:
    """ESM: edges on S1 and S2, ASSM: masks on S3 to S5 (sections 3.1, 4.3, 4.4);
    starred ones on the decoder."""
    for variant in read_experiment(name).variants:
        modules = variant.name.split(" + ")
        if variant.name.startswith("ResUNet_C") or "network_def#edge_stages_dec" not in variant.settings:
            continue
        stages = {key.removeprefix("network_def#"): value for key, value in variant.settings.items()}
        edges = [1, 2, 3, 4, 5] if "ESM on all five stages" in modules else [1, 2] if "ESM" in modules else []
        assert stages["edge_stages"] == edges, variant.name
        assert stages["mask_stages"] == ([3, 4, 5] if "ASSM" in modules else []), variant.name
        assert stages["edge_stages_dec"] == ([1, 2] if "ESM*" in modules else []), variant.name
        assert stages["mask_stages_dec"] == ([3, 4, 5] if "ASSM*" in modules else []), variant.name


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match="experiment is 'table9'"):
        read_experiment("table9")
    with pytest.raises(UserError, match="variants ResUNet"):
        read_experiment("table3", ["ResUNet"])


def test_rows_of_other_experiments_are_taken_over_with_the_shared_settings() -> None:
    paper, table2, table4 = (read_experiment(name) for name in ("paper", "table2", "table4"))
    names = ["baseline", "ESM", "ESM on all five stages", "ASSM", "AFM", "ResUNet_C_1"]
    assert [one.name for one in paper.variants[:6]] == names
    assert paper.variants[3].settings == {"field_of_view": "lungs", **table4.variants[3].settings}
    (unet,) = read_experiment("paper", ["U-Net"]).variants
    assert (unet.files, unet.published) == (table2.variants[0].files, table2.variants[0].published)
    assert unet.settings == {"field_of_view": "lungs"}


def test_tables_of_cares_unet_have_the_published_rows() -> None:
    names = ["FCN-8s", "SegNet", "U-Net", "LinkNet", "FPN", "PSPNet", "U-Net with ResNet-34"]
    first, second, third = (read_experiment(name) for name in ("cares", "cares_table2", "cares_table3"))
    assert [one.name for one in first.variants] == [*names, "Inf-Net", "CARes-UNet"]
    assert set(first.left_out) == {"semi-Inf-Net", "semi-CARes-UNet"}
    for table, dice in ((first, 73.1), (second, 77.0), (third, 75.5)):
        assert table.variants[-1].published["dice"] == dice
    assert [one.name for one in second.variants] == [one.name for one in third.variants] == [*names, "CARes-UNet"]
    assert second.variants[0].published["e_measure"] == 72.7


@pytest.mark.parametrize(("name", "resunet", "acfnet"), [("table6", 87.43, 79.40), ("table7", 85.52, 84.31),
                                                         ("table8", 72.81, 68.69)])  # fmt: skip
def test_tables_of_other_data_have_the_thirteen_methods_with_figures_of_their_own(name, resunet, acfnet) -> None:
    table, methods = read_experiment(name).variants, read_experiment("table2").variants
    assert [(one.name, one.files, one.settings) for one in table] == [
        (one.name, one.files, one.settings) for one in methods
    ]
    assert len(table) == 13
    figures = {one.name: one.published for one in table}
    assert (figures["ResUNet_C_2"]["dice"], figures["ACFNet"]["dice"]) == (resunet, acfnet)
    keys = {"dice", "sensitivity", "mae"}
    assert all(set(one) == keys | {f"{key}_sd" for key in keys} for one in figures.values())
