"""Measure what tells whether a mask can be trusted: out-of-distribution scores, calibration, views.

Run from the bundle root, with the weights of all folds of a cross-validation on DATA:

    python docs/measure_ood.py DATA OUT WEIGHTS WEIGHTS ... [--others FILE,FOLDER] [--slices 12]
        [--pictures 20] [--size 208] [--device cpu]

Each case of DATA is judged by the weights that did not see it: at most `slices` slices of a volume,
evenly spread, and at most `pictures` lesion-free pictures of a fold. Beside them stand slices above
and below the lungs of the same volumes, quarters of their slices, pictures made by code, phantoms,
and the scans of `others`, shared among the weights. In distribution are the labelled cases. A
network sees each slice once; only the agreement of the views needs its flips.
OUT receives ood.csv (AUROC by group and score), cases.csv (scores, Dice and agreement by case),
calibration.csv and table.md. A run that was stopped resumes with the same command; another choice
of data, weights, scans or options takes another OUT.
"""

from __future__ import annotations

import math
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import expit, logit
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.data.datalist import select_cases
from scripts.data.layouts.case import Case
from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError, ended_by_mistakes
from scripts.files import digest, write_atomic
from scripts.inference.backends.torch_network import TorchNetwork
from scripts.inference.calibration import OOD_MARGIN
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.ood import CENTRES, FeatureMeans, OODScore, channel_weights, deep_layers
from scripts.inference.operating_point import GOOD_DICE, lowest_usual
from scripts.inference.reliability import calibrated_levels, calibration_error
from scripts.inference.segmenter import Segmenter
from scripts.inference.tta import ViewAgreement, agreement_percent, average_over_flips
from scripts.inference.unseen_cases import check_data, read_infection
from scripts.io.images import is_picture
from scripts.io.reading import read_scan
from scripts.io.volume import Scan
from scripts.messages import markdown_table, wrapped
from scripts.pipeline.case import read_case
from scripts.pipeline.inputs import expand_inputs
from scripts.research.measured_rows import goes_on
from scripts.settings import describe_machine
from scripts.transforms.slice_input import SliceInput, resize_slice
from scripts.version import bundle_version

Array = NDArray[Any]
BINS = np.linspace(-12, 12, 385)
"""Edges of bins of logits, for calibration."""
INPUTS = "inputs"
"""Folder of OUT for what the networks see."""
UNSURE = (0.1, 0.9)
FEWEST = 3  # slices above or below the lungs that make a case
NEIGHBOURS = 5
SHRINKAGE = 0.5  # of a covariance towards its diagonal
BOOTSTRAPS = 2000
SCORES = {
    "present": f"nearest of {CENTRES} centres",
    "one_centre": "one centre",
    "deepest": "one centre, deepest layer",
    "mahalanobis": "deepest layer, Mahalanobis",
    "neighbours": "5th nearest neighbour",
    "entropy": "mean entropy of marked voxels",
    "unsure": "unsure voxels among those from 0.1 on",
    "views": "disagreement of flipped views",
}


def evenly(places: Sequence[int], count: int) -> list[int]:
    """Choose at most `count` of the places, evenly spread."""
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    return [places[index] for index in chosen]


def pieces_of(
    scan: Scan, case: Case, segmenter: Segmenter, count: int
) -> Iterator[tuple[str, list[Tensor], Array | None]]:
    """Yield kind, slices in HU and infection of a case, and of what lies beyond its lungs."""
    slices = HounsfieldSlices(scan, case.get("intensity") or segmenter.intensity)
    x, y, z = segmenter.visible_box(scan, slices)
    chosen = evenly(range(z.start, z.stop), count)
    truth = None
    if "label" in case:
        truth = read_infection(case["label"], case.get("label_codes"))[x, y][..., chosen]
    yield "", [slices[index][x, y] for index in chosen], truth
    if scan.picture or "fold" not in case:
        return
    for kind, beyond in (("below the lungs", range(z.start)), ("above the lungs", range(z.stop, len(slices)))):
        if len(beyond) >= FEWEST:
            yield kind, [slices[index] for index in evenly(beyond, count // 2)], None
    rng = np.random.default_rng(zlib.crc32(case["name"].encode()))
    quarters = []
    for index in evenly(chosen, count // 2):
        hu = slices[index][x, y]
        left, top = (int(rng.integers(0, size - size // 2 + 1)) for size in hu.shape)
        quarters.append(hu[left : left + hu.shape[0] // 2, top : top + hu.shape[1] // 2])
    yield "quarters of slices", quarters, None


def made_pictures() -> Iterator[tuple[str, Tensor]]:
    """Yield pictures in HU that show no body: noise, clouds, stripes, a board, discs."""
    rng, size = np.random.default_rng(0), 256
    y, x = np.mgrid[:size, :size] / size
    for number in range(4):
        angle, wave = rng.uniform(0, np.pi), rng.uniform(3, 20)
        along = x * np.cos(angle) + y * np.sin(angle)
        coarse = torch.from_numpy(rng.random((6, 6)).astype(np.float32))
        discs = [((x - a) ** 2 + (y - b) ** 2 < r**2) for a, b, r in rng.uniform(0.1, 0.5, (8, 3)) * (2, 2, 0.4)]
        kinds = {
            "noise": rng.random((size, size)),
            "clouds": resize_slice(coarse, (size, size)).numpy(),
            "stripes": 0.5 + 0.5 * np.sin(2 * np.pi * wave * along),
            "board": (np.floor(x * wave) + np.floor(y * wave)) % 2,
            "discs": np.any(discs, axis=0),
        }
        for kind, values in kinds.items():
            yield f"{kind}_{number}", torch.from_numpy(1500 * values.astype(np.float32) - 1250)


def save_inputs(file: Path, images: list[Tensor], see: SliceInput, truth: Array | None = None, **stated: Any) -> None:
    """Keep the network's input of slices."""
    seen = torch.stack([see(one) for one in images]).numpy()
    truth = np.zeros((0, 0, 0), bool) if truth is None else truth
    write_atomic(file, lambda path: np.savez_compressed(path, images=seen, truth=truth, **stated))


def group_of(case: Case) -> str:
    """Return the group of a case of the data."""
    kind = "pictures" if is_picture(case["image"]) else "volumes"
    return f"{'negative' if case.get('lesion_free') else 'labelled'} {kind}"


def prepare(cases: Sequence[Case], others: Sequence[Path], segmenter: Segmenter, folder: Path, count: int) -> None:
    """Make the network's input of every piece; OUT keeps what is done."""
    see = segmenter.slice_input
    known = [(case, partial(read_scan, Path(case["image"]))) for case in cases]
    stack = ExitStack()
    further = [
        ({"name": one.folder, "group": "other chest CT"}, partial(read_case, one, stack))
        for one in (expand_inputs(list(others), folder) if others else [])
    ]
    for case, read in tqdm([*known, *further], desc="slices", unit="case"):
        file = folder / f"{case['name']}.npz"
        if file.exists():
            continue
        with stack:
            scan = read()
            save_pieces(scan, case, segmenter, file, count)
    for name, picture in made_pictures():
        save_inputs(folder / f"made_{name}.npz", [picture], see, fold=-1, picture=True, group="pictures made by code")
    for seed in range(6):
        file = folder / f"phantom_{seed}.npz"
        if file.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            phantom = make_phantom(seed)
            nib.save(nib.Nifti1Image(phantom.image, phantom.affine), f"{temporary}/scan.nii.gz")
            scan = read_scan(Path(temporary, "scan.nii.gz"))
            save_pieces(scan, {"group": "phantoms"}, segmenter, file, count // 2)


def save_pieces(scan: Scan, case: Case, segmenter: Segmenter, file: Path, count: int) -> None:
    """Keep the input of a case, and of what lies beyond its lungs."""
    shared = {"fold": case.get("fold", -1), "picture": scan.picture}
    own: dict[str, Any] = {}
    for kind, images, truth in pieces_of(scan, case, segmenter, count):
        group = kind or case.get("group") or group_of(case)
        stated = {**shared, "group": group, "images": images, "truth": truth}
        if kind:
            save_inputs(file.with_name(f"{case['name']} {kind}.npz"), see=segmenter.slice_input, **stated)
        else:
            own = stated
    save_inputs(file, see=segmenter.slice_input, **own)  # last: it says that the case is done


def apply(segmenter: Segmenter, layers: Sequence[str], piece: Any, flips: bool) -> dict[str, Array]:
    """Apply a network to the slices of a piece: features, entropy, agreement, counts by logit."""
    threshold, network = segmenter.threshold, segmenter.predictor.network
    applied = TorchNetwork(network, segmenter.backend.precision, layers)
    images = torch.from_numpy(piece["images"])[:, None].to(next(network.parameters()).device)
    features, agreement, seen = FeatureMeans(), ViewAgreement(threshold), []

    def see(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits, means = applied(batch)
        seen.append(logits.float())
        return seen[-1], means

    with torch.inference_mode():
        average = average_over_flips(see, images, 4 if flips else 1, agreement=agreement, features=features)
    found = {"features": features.take().numpy()}
    if not flips:
        return found
    once, mean = (torch.sigmoid(one)[:, 0].cpu() for one in (seen[0], average))
    entropy = -(once * once.clamp(min=1e-7).log2() + (1 - once) * (1 - once).clamp(min=1e-7).log2())
    marked, likely = once >= threshold, once >= UNSURE[0]
    found["entropy"] = np.array(float(entropy[marked].mean()) if marked.any() else 0.0)
    found["unsure"] = np.array(float((once[likely] < UNSURE[1]).float().mean()) if likely.any() else 0.0)
    found["views"] = agreement.take().numpy()
    found["marked"] = np.array(int((mean >= threshold).sum()))
    truth = piece["truth"]
    if truth.size:
        maps = np.stack([resize_slice(one, truth.shape[:2]).numpy() for one in mean], axis=-1)
        logits = np.clip(logit(np.clip(maps, 1e-6, 1 - 1e-6)), BINS[0], BINS[-1])
        found["counts"] = np.stack([np.histogram(part, BINS)[0] for part in (logits, logits[truth])])
        mask = maps >= threshold
        total = int(mask.sum() + truth.sum())
        found["dice"] = np.array(2 * int((mask & truth).sum()) / total if total else math.nan)
    return found


def distances(layers: Mapping[str, int], train: Array, own: Array) -> dict[str, float]:
    """Score the features of a piece, (n, C), by those of the training slices, (N, C)."""
    learnt = OODScore.of(layers, torch.from_numpy(train), 0.0)
    deep, weights = next(iter(layers.values())), channel_weights(layers).numpy()
    z_train, z_own = ((rows - np.array(learnt.mean)) / np.array(learnt.sd) for rows in (train, own))
    spread = (1 - SHRINKAGE) * np.cov(z_train[:, :deep].T) + SHRINKAGE * np.eye(deep)
    solved = np.linalg.solve(spread, z_own[:, :deep].T).T
    apart = cdist(z_own * weights, z_train * weights)
    return {
        "present": float(learnt(torch.from_numpy(own)).mean()),
        "one_centre": float(np.linalg.norm(z_own * weights, axis=1).mean()),
        "deepest": float(np.sqrt((z_own[:, :deep] ** 2).mean(axis=1)).mean()),
        "mahalanobis": float(np.sqrt((z_own[:, :deep] * solved).mean(axis=1)).mean()),
        "neighbours": float(np.sort(apart, axis=1)[:, NEIGHBOURS - 1].mean()),
    }


def auroc(inside: Array, outside: Array) -> Array:
    """Return the probability that a case of `outside` scores higher; equal scores count half.

    Both are (..., n), and the result is (...).
    """
    known, n = inside.shape[-1], outside.shape[-1]
    ranks = rankdata(np.concatenate([inside, outside], axis=-1), axis=-1)[..., known:]
    return np.asarray((ranks.sum(axis=-1) - n * (n + 1) / 2) / (n * known))


def interval(inside: Array, outside: Array) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC, cases of both sides drawn anew."""
    rng = np.random.default_rng(0)
    drawn = (rng.choice(side, (BOOTSTRAPS, len(side))) for side in (inside, outside))
    low, high = np.percentile(auroc(*drawn), [2.5, 97.5])
    return float(low), float(high)


def separate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the AUROC of each score, groups against the labelled cases of their kind."""
    table = []
    for group, own in rows[~rows["group"].str.startswith("labelled")].groupby("group"):
        known = rows[rows["group"] == f"labelled {'pictures' if own['picture'].all() else 'volumes'}"]
        if known.empty:
            print(f"{group}: there are no labelled cases of its kind to compare with")
            continue
        for score, words in SCORES.items():
            inside, outside = known[score].to_numpy(), own[score].to_numpy()
            low, high = interval(inside, outside)
            above = int((outside > OOD_MARGIN * inside.max()).sum())
            one = {"group": group, "n": len(own), "in distribution": len(known), "score": words}
            table.append({**one, "AUROC": float(auroc(inside, outside)), "low": low, "high": high, "flagged": above})
    return pd.DataFrame(table)


def errors_of(probability: Array, counts: Array) -> dict[str, float]:
    """Return Brier score and expected calibration error of voxels from a probability of 1/16 on."""
    number, lesion = counts
    brier = (lesion * (1 - probability) ** 2 + (number - lesion) * probability**2).sum() / number.sum()
    return {"Brier": float(brier), "ECE": calibration_error(curve_of(probability, counts))}


def curve_of(probability: Array, counts: Array) -> list[dict[str, float]]:
    """Return the reliability curve that `calibrate` puts into the metadata."""
    number, lesion = counts
    bins = np.minimum((probability * 16).astype(int), 15)
    sums = zip(*(np.bincount(bins, weights, 16) for weights in (number, lesion, number * probability)), strict=True)
    return [{"voxels": n, "observed": found / n, "probability": said / n} for n, found, said in sums if n]


def calibrations(counts: dict[int, Array]) -> pd.DataFrame:
    """Return the errors of each fold as it is and recalibrated on the others."""
    centres = (BINS[:-1] + BINS[1:]) / 2
    table = []
    for fold, own in counts.items():
        others = np.sum([one for other, one in counts.items() if other != fold], axis=0)
        number, lesion = others

        def loss(log_t: float, number: Array = number, lesion: Array = lesion) -> float:
            scaled = centres / math.exp(log_t)
            cost = lesion * np.logaddexp(0, -scaled) + (number - lesion) * np.logaddexp(0, scaled)
            return float(cost.sum())

        temperature = math.exp(minimize_scalar(loss, bounds=(-2, 3), method="bounded").x)
        steps = isotonic_regression(lesion / np.maximum(number, 1), weights=np.maximum(number, 1e-9)).x
        plain = expit(centres)
        written = calibrated_levels(curve_of(plain, others), 255)[np.rint(255 * plain).astype(int)] / 255
        maps = {"as it is": plain, "temperature": expit(centres / temperature), "isotonic": steps}
        maps["as `--probability` writes it"] = written
        for name, probability in maps.items():
            kept = temperature if name == "temperature" else math.nan
            table.append({"fold": fold, "map": name, **errors_of(probability, own), "T": kept})
    return pd.DataFrame(table)


def views_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for limits of the agreement how many cases of each group would be flagged."""
    table = []
    marked = rows[(rows["marked"] > 0) & rows["group"].str.contains("labelled|negative")]
    good = marked.loc[marked["dice"] >= GOOD_DICE, "agree"]
    for limit in [lowest_usual(good.to_numpy()), *range(30, 95, 5)]:  # first as `calibrate` does
        row: dict[str, Any] = {"limit, %": limit}
        for kind in ("volumes", "pictures"):
            own = marked[marked["group"] == f"labelled {kind}"]
            low, free = own["dice"] < GOOD_DICE, marked[marked["group"] == f"negative {kind}"]
            for name, part in (("low", own[low]), ("good", own[~low]), ("negative", free)):
                row[f"{name} {kind}"] = f"{int((part['agree'] < limit).sum())} of {len(part)}"
        table.append(row)
    return pd.DataFrame(table)


def lines_of(table: pd.DataFrame) -> list[str]:
    """Return a table as lines of Markdown."""
    return markdown_table(table.columns, table.map(lambda one: f"{one:.3g}" if isinstance(one, float) else one).values)


def write(rows: pd.DataFrame, counts: dict[int, Array], out: Path, machine: str) -> None:
    """Write the tables."""
    ood, calibration = separate(rows), calibrations(counts)
    for name, table in {"ood": ood, "cases": rows, "calibration": calibration}.items():
        write_atomic(out / f"{name}.csv", lambda path, table=table: table.to_csv(path, index=False))
    ranks = []
    for kind in ("volumes", "pictures"):
        own = rows[(rows["group"] == f"labelled {kind}") & rows["agree"].notna()]
        found = spearmanr(own["agree"], own["dice"])
        ranks.append(f"* {kind}: n = {len(own)}, rho {found.statistic:.2f}, p {found.pvalue:.2g}")
    shown = [f"{a:.2f} ({b:.2f} to {c:.2f})" for a, b, c in ood[["AUROC", "low", "high"]].to_numpy()]
    head = ["group", "n", "in distribution"]
    flagged = ood[ood["score"] == SCORES["present"]][["group", "n", "flagged"]]
    wide = ood.assign(shown=shown).pivot(index=head, columns="score", values="shown")[list(SCORES.values())]
    means = calibration.groupby("map")[["Brier", "ECE", "T"]].mean().reset_index()
    lines = ["# Trust in a mask", "", wrapped(f"Machine: {machine}"), "", "## AUROC (95 % interval)", ""]
    lines += [
        *lines_of(wide.reset_index()),
        "",
        f"Present score above {OOD_MARGIN} times the highest in distribution:",
        "",
    ]
    lines += [*lines_of(flagged), "", "## Agreement of views against Dice, rank correlation", "", *ranks]
    lines += [
        "",
        f"Cases below a limit; low is a Dice below {GOOD_DICE}, the first limit by the rule of `calibrate`:",
        "",
        *lines_of(views_table(rows)),
    ]
    lines += ["", "## Calibration, mean over folds, each by the others", "", *lines_of(means), ""]
    write_atomic(out / "table.md", lambda path: path.write_text("\n".join(lines), encoding="utf-8"))


def measured(piece: Path, file: Path, segmenter: Segmenter, layers: Sequence[str], flips: bool) -> Any:
    """Return what `apply` gives of a piece, or what an earlier run kept."""
    if not file.exists():
        found = apply(segmenter, layers, np.load(piece), flips)
        write_atomic(file, lambda path: np.savez(path, **found))
    return dict(np.load(file))


def judge(
    segmenter: Segmenter, number: int, folds: Sequence[int], out: Path
) -> Iterator[tuple[dict[str, Any], Array | None]]:
    """Yield a row per piece that falls to the weights, and its counts by logit."""
    fold, layers = folds[number], deep_layers(segmenter.predictor.network, segmenter.slice_input.size)
    pieces = [(path, np.load(path)) for path in sorted((out / INPUTS).glob("*.npz"))]
    kept = out / str(segmenter.metadata["sha256"])[:12]
    without = [path for path, piece in pieces if int(piece["fold"]) not in folds]
    train, own = [], []
    for path, piece in tqdm(pieces, desc=f"weights {number + 1} of {len(folds)}", unit="piece"):
        group, place = str(piece["group"]), int(piece["fold"])
        mine = place == fold or (path in without and without.index(path) % len(folds) == number)
        if mine or (place in folds and group.startswith("labelled")):
            found = measured(path, kept / path.name, segmenter, tuple(layers), mine)
            (own if mine else train).append((path.stem, group, bool(piece["picture"]), found))
    known = np.concatenate([found["features"] for *_, found in train])
    for case, group, picture, found in own:
        agree = agreement_percent(torch.from_numpy(found["views"]))
        row = {"case": case, "group": group, "picture": picture, "fold": fold}
        row |= distances(layers, known, found["features"])
        row |= {"entropy": float(found["entropy"]), "unsure": float(found["unsure"])}
        row |= {"views": 0.0 if agree is None else 100 - agree, "marked": int(found["marked"])}
        row |= {"agree": math.nan if agree is None else agree}
        yield row | {"dice": float(found.get("dice", math.nan))}, found.get("counts")


def main(
    data: str,
    out: str,
    *weights: str,
    others: str | Sequence[str] = "",
    slices: int = 12,
    pictures: int = 20,
    size: int = 208,
    device: str = "cpu",
) -> None:
    """Measure, weights by weights."""
    target = Path(out)
    if not weights:
        raise UserError("no weights; expected: those of every fold of a cross-validation")
    segmenters = [Segmenter(one, device, backend="torch") for one in weights]
    for one, segmenter in zip(weights, segmenters, strict=True):
        check_data(Path(one), segmenter.metadata, data)
        segmenter.slice_input = SliceInput(size, segmenter.slice_input.window, segmenter.slice_input.z_score)
    folds = [segmenter.metadata["data"]["fold"] for segmenter in segmenters]
    if not all(isinstance(fold, int) for fold in folds) or len(set(folds)) < len(folds):
        raise UserError(f"{', '.join(weights)}: folds {folds}; expected: weights of different folds")
    cases: list[Case] = []
    for fold in folds:
        own = [case for case in select_cases(data, "validation", fold) if "label" in case or case.get("lesion_free")]
        free = [case for case in own if group_of(case) == "negative pictures"]
        chosen = evenly(range(len(free)), pictures)
        cases += [case for case in own if case not in free] + [free[index] for index in chosen]
    paths = [Path(one) for one in (others.split(",") if isinstance(others, str) else others) if one]
    goes_on(
        target,
        INPUTS,
        version=bundle_version(),
        cases=digest(cases),
        weights=[segmenter.metadata["sha256"] for segmenter in segmenters],
        others=[str(path.resolve()) for path in paths],
        slices=slices,
        size=size,
    )
    prepare(cases, paths, segmenters[0], target / INPUTS, slices)
    rows: list[dict[str, Any]] = []
    counts: dict[int, Array] = {}
    for number, segmenter in enumerate(segmenters):
        for row, counted in judge(segmenter, number, folds, target):
            rows.append(row)
            if counted is not None:
                counts[folds[number]] = counts.get(folds[number], 0) + counted
    write(pd.DataFrame(rows), counts, target, describe_machine(torch.device(device)))
    print(f"{target / 'table.md'}")


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
