"""`python -m scripts calibrate WEIGHTS DATA [RUN...]`: complete the metadata of a checkpoint."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Backend, Data, Device, Precision, Views


def calibrate(
    weights: Annotated[Path, Argument(help="Weights whose metadata is completed.")],
    data: Data,
    runs: Annotated[
        list[Path] | None,
        Argument(metavar="RUN", help="Weights of the same recipe on other folds; default: WEIGHTS on its own fold."),
    ] = None,
    flips: Annotated[
        bool | None, Option(help="Use test-time augmentation by flips, now and wherever the weights are applied.")
    ] = None,
    views: Views = None,
    size: Annotated[
        int | None, Option(help="Edge length of the network's input in pixels; default: the metadata's.")
    ] = None,
    through_plane_mm: Annotated[
        float | None,
        Option(
            help="Average probabilities over neighbouring slices by a Gaussian of this standard deviation; "
            "default: the metadata's.",
        ),
    ] = None,
    slices: Annotated[int, Option(help="Number of training slices that describe what is in distribution.")] = 400,
    device: Device = None,
    backend: Backend = "torch",
    precision: Precision = "fp32",
) -> None:
    """Choose the decision threshold of weights, measure calibration.

    Works on cases that the weights did not see. Writes into the metadata beside WEIGHTS: the
    operating point, the reliability of the probabilities, what is marked on volumes without
    infection, and the features of training slices by which `segment` recognises out-of-distribution
    scans. Draws the reliability curve and lists the cases beside it.
    """
    from ..inference.backends.choice import choose_backend
    from ..inference.calibration import calibrate as measure_calibration
    from ..inference.tta import chosen_flips
    from ..settings import usable_device

    place = usable_device(device)
    applied = choose_backend(backend, precision, place)
    chosen = chosen_flips(flips, views) or False
    settings = chosen, slices, place, size, applied, through_plane_mm
    stated = measure_calibration(weights, str(data), runs or [], *settings)
    found, point = stated["calibration"], stated["operating_point"]
    print(f"threshold {point['threshold']:.3f}")
    for kind, dice in found["dice"].items():
        print(f"{dice['n']} {kind}: mean Dice {dice['at_threshold']:.3f} (at 0.5: {dice['at_one_half']:.3f})")
    if found["slices"]:
        print(
            f"a slice counts from {found['slices']['least_share']:.5f} of its pixels on: sensitivity "
            f"{found['slices']['sensitivity']:.3f}, specificity {found['slices']['specificity']:.3f}"
        )
    if views := found["views"]:
        print(
            f"a border is unsure where the views agree for less than {views['least_percent']:.1f} %: "
            f"{views['low_flagged']} of {views['low']} low and {views['good_flagged']} of {views['good']} good masks; "
            f"rank correlation with Dice {views['rank_correlation']:.2f}"
        )
    if free := found["lesion_free"]:
        for key, unit in (("percent_of_lungs", "% of the lungs"), ("ml", "ml")):
            if values := free[key]:
                print(f"marked on {len(values)} volumes without infection: {values[0]:.3g} to {values[-1]:.3g} {unit}")
    print(f"calibration error {found['calibration_error']:.3f}")
    known = stated["familiarity"]
    volumes = "" if known["limit_volumes"] is None else f", volumes above {known['limit_volumes']:.2f}"
    print(f"out of distribution above a score of {known['limit']:.2f}{volumes}")
