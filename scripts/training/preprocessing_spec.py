"""What metadata record of preprocessing, checked against the chains of a training."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from monai.transforms import ConcatItemsd, MapTransform
from monai.transforms.traits import RandomizableTrait

from ..errors import UserError
from ..inference.metadata_schema import PreprocessingSteps
from ..schema import check_content
from ..transforms import preprocessing, steps
from ..transforms.intensity import RandWindowd
from ..transforms.items import EDGE, FINER, IMAGE, LABEL, LUNG, PRIOR, SECOND, SOFT
from ..transforms.slice_input import OWN_SIZE

LABELS = frozenset({LABEL, PRIOR, FINER, SECOND, SOFT, EDGE})
"""Keys of an item whose steps are free."""


def preprocessing_spec(chains: Mapping[str, Sequence[Any]], **stated: Any) -> dict[str, Any]:
    """Return what metadata record of the preprocessing, as `inference/metadata.py` reads it.

    Whatever applies the weights builds the preprocessing from this record alone. So the steps that
    a training lists must be the recorded ones: another order, another argument or a further step of
    the image is refused. Random steps and those of the label are free.

    Args:
        chains: for the id of each chain, the transforms that follow each other, from a path to what
            the network sees.
        **stated: the record: "size", "window", "intensity", "field_of_view", "z_score",
            "lung_only"; "patch_size" or "prior" for networks that see patches or a prior.

    Raises:
        UserError: names the first step that the record cannot state, or a value that the metadata
            cannot hold; for slices of their own size without patches.
    """
    if stated["size"] == OWN_SIZE and "patch_size" not in stated:
        raise UserError("spatial_size is -1 for a network that sees whole slices; expected: one size for all of them")
    check_content(PreprocessingSteps, stated, "preprocessing")
    recorded = {key: value for key, value in stated.items() if key not in ("patch_size", "prior")}
    window, z_score = recorded.pop("window"), recorded.pop("z_score", True)
    expected = [
        *preprocessing.image_grid(**recorded, given_lungs=True),
        *preprocessing.network_input(window, z_score),
        *([ConcatItemsd((IMAGE, PRIOR), IMAGE)] if "prior" in stated else []),
    ]
    wanted = [steps.settings(step) for step in expected]
    beside = LABELS if stated.get("lung_only") else LABELS | {LUNG}  # lungs that the image does not depend on
    for name, chain in chains.items():
        listed = _of_image(chain, beside)
        try:
            found = [steps.settings(step) for step in listed]
        except TypeError as error:
            stated_by = "steps that hold numbers, texts, arrays, or objects with attributes"
            raise UserError(f"{name}: {error}, so that no metadata can state it; expected: {stated_by}") from None
        if found != wanted:
            same = next((i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), None)
            place = min(len(found), len(wanted)) if same is None else same
            here, there = (_name(chain, place) for chain in (listed, expected))
            raise UserError(
                f"{name}: {here} stands where checkpoint metadata state {there}{_same_name(here, there)}; expected: "
                "the steps of the image as they are (spatial_size, window, intensity, field_of_view, z_score and "
                "lung_only set them; random steps are free), because inference knows no others"
            )
    return stated


def _of_image(chain: Sequence[Any], beside: Set[str]) -> list[Any]:
    """The steps that decide what the network sees once no chance is left."""
    found = []
    for step in steps.flattened(chain):
        if isinstance(step, RandWindowd):
            found.append(step.steady)
        elif isinstance(step, RandomizableTrait) or (isinstance(step, MapTransform) and set(step.keys) <= beside):
            continue
        else:
            found.append(step)
    return found


def _name(chain: Sequence[Any], place: int) -> str:
    return type(chain[place]).__name__ if place < len(chain) else "the end"


def _same_name(here: str, there: str) -> str:
    return " with other arguments" if here == there else ""
