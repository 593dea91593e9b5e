"""Draw what a network computes on the way to its mask, as the ResUNet paper shows it.

Figure 7: the maps of the supervised stages. Figure 8: the attention fusion, P_1, 1 - P_1, Y_1 and
S_p. Figure 6: the masks of several networks on one slice. The last panel of each is the ground
truth, where it is given.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from ..files import check_results_folder, results_folder
from ..inference.hounsfield import HounsfieldSlices
from ..inference.segmenter import Segmenter
from ..io.masks import read_mask
from ..io.reading import read_scan
from ..io.volume import Scan, canonical
from ..networks.resunet.fusion import AttentionFusion
from ..networks.resunet.resunet import ResUNet
from ..networks.resunet.supervision import SupervisionHeads
from ..report.preview import LUNG_WINDOW, choose_slices
from ..transforms.labels import inner_edge

Picture = NDArray[np.float32]
FILES = ("comparison.png", "stages.png", "fusion.png")
_CORRECT, _MISSED, _WRONG = (0.2, 0.8, 0.3), (1.0, 0.6, 0.1), (0.9, 0.2, 0.8)  # told apart by the colour-blind, too


def stage_maps(network: ResUNet, image: Tensor) -> dict[str, Picture]:
    """Return the probability maps of the supervised stages, those under edge supervision first.

    Args:
        network: in evaluation mode; its heads are asked although evaluation does without them.
        image: (1, 1, H, W), as the network sees it.

    Returns:
        Maps (H, W) by names such as "S1 edge" or "X2 mask" (of the decoder).
    """
    with torch.inference_mode():
        encoded = network.encoder(image)
        decoded = network.decoder(encoded)
        size = list(image.shape[2:])
        found: dict[str, Picture] = {}
        for name, heads in network.heads.items():
            assert isinstance(heads, SupervisionHeads)
            target, side = name.split("_")
            levels = decoded if side == "decoder" else encoded
            maps = torch.sigmoid(heads(levels, size))[0].cpu().numpy()
            letter = "X" if side == "decoder" else "S"
            found |= {f"{letter}{stage} {target}": one for stage, one in zip(heads.stages, maps, strict=True)}
    return found


def fusion_maps(network: ResUNet, image: Tensor) -> dict[str, Picture]:
    """Return P_1, 1 - P_1, Y_1 (mean over its channels) and S_p of the attention fusion.

    Arguments are those of `stage_maps`; the maps (H, W) come by their names.
    """
    assert isinstance(network.fusion, AttentionFusion)
    with torch.inference_mode():
        decoded = network.decoder(network.encoder(image))
        _, attention, attended = network.fusion.attend(decoded)
        first = attention[0].mean(dim=1)[0]
        predicted = torch.sigmoid(network.out(network.fusion(decoded)))[0, 0]
        maps = {"P1": first, "1 - P1": 1 - first, "Y1, mean": attended[0].mean(dim=1)[0], "Sp": predicted}
    return {name: one.cpu().numpy() for name, one in maps.items()}


def truth_maps(truth: NDArray[np.bool_], image: Tensor) -> dict[str, Picture]:
    """Return the ground truth and its edge as a training sees them.

    Args:
        truth: (X, Y), what the network sees of the slice.
        image: (1, 1, H, W), as the network sees it.

    Returns:
        Maps (H, W), values in {0, 1}.
    """
    mask = torch.from_numpy(np.ascontiguousarray(truth)).float()[None, None]
    mask = F.interpolate(mask, image.shape[2:], mode="nearest-exact")
    maps = {"ground truth": mask, "edge of the ground truth": inner_edge(mask)}
    return {name: one[0, 0].cpu().numpy() for name, one in maps.items()}


def agreement(hu: Picture, mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> Picture:
    """Colour a mask (X, Y) over a slice: what is right, missed and wrong where the truth is known.

    Returns:
        (Y, X, 3), range [0, 1].
    """
    low, high = LUNG_WINDOW
    grey = np.clip((hu - low) / (high - low), 0, 1).T
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    known = mask if truth is None else truth
    for area, colour in ((mask & known, _CORRECT), (known & ~mask, _MISSED), (mask & ~known, _WRONG)):
        picture[area.T] = 0.45 * picture[area.T] + 0.55 * np.array(colour)
    return picture


def figure_files(
    scan_path: str | Path,
    out: str | Path,
    weights: Sequence[str | Path],
    truth_path: str | Path | None = None,
    slice_from_inferior: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `comparison.png` and, for weights of a ResUNet, `stages.png` and `fusion.png`.

    Args:
        scan_path: any scan or picture that `segment` takes, but DICOM.
        out: the folder; it appears when all is complete.
        weights: of one or several networks for slices; stages and fusion are those of the first
            ResUNet.
        truth_path: reference mask on the scan's grid.
        slice_from_inferior: which axial slice, counted from 1 at the feet; the most affected one
            unless given.
        device: a torch device.
        overwrite: replaces what an earlier call wrote.

    Raises:
        UserError: if a file cannot be used, there is no such slice, or the folder holds other
            files.
    """
    target = Path(out)
    check_results_folder(target, FILES, overwrite)
    scan = read_scan(Path(scan_path))
    truth = None
    if truth_path is not None:
        truth = read_mask(Path(truth_path), scan) > 0
    models = [Segmenter(one, device, keep_outside=True) for one in weights]
    seen = [HounsfieldSlices(scan, model.intensity) for model in models]
    slices = seen[0]
    if slice_from_inferior is not None and not 1 <= slice_from_inferior <= len(slices):
        raise UserError(f"--slice {slice_from_inferior} of {len(slices)}; expected: 1 to {len(slices)}")
    found = [model.segment(scan, one).mask for model, one in zip(models, seen, strict=True)]
    masks = [canonical(mask, scan.affine) > 0 for mask in found]
    affected = choose_slices(masks[0] if truth is None else truth, 1)[0]
    index = affected if slice_from_inferior is None else slice_from_inferior - 1
    hu = slices[index].cpu().numpy()
    reference = None if truth is None else truth[..., index]
    panels = [("slice", agreement(hu, np.zeros(hu.shape, bool), None))]
    if reference is not None:
        panels.append(("reference", agreement(hu, reference, None)))
    names = tell_apart([model.weights for model in models])
    for model, mask, name in zip(models, masks, names, strict=True):
        shown = f"{model.metadata['network']['name']}\n{name}"
        panels.append((shown, agreement(hu, mask[..., index], reference)))
    title = f"{scan.name}, slice {index + 1} of {len(slices)} from the feet"
    legend = "" if reference is None else "green: found, orange: missed, magenta: wrong"
    with results_folder(target, FILES, overwrite) as folder:
        _draw(panels, f"{title}\n{legend}", folder / "comparison.png")
        _draw_inside(models, scan, index, title, folder, reference)
    return target


def tell_apart(paths: Sequence[Path]) -> list[str]:
    """Name files by what of their paths the others do not share, at the beginning or at the end.

    >>> tell_apart([Path("out/unet/run/model.pt"), Path("out/resunet/run/model.pt")])
    ['unet', 'resunet']
    """
    rows = [path.parts for path in paths]
    shortest = min(map(len, rows))
    first = next((k for k in range(shortest) if len({row[k] for row in rows}) > 1), shortest - 1)
    last = next((k for k in range(1, shortest - first) if len({row[-k] for row in rows}) > 1), shortest - first)
    return ["/".join(row[first : len(row) - last + 1]) for row in rows]


def _draw_inside(
    models: Sequence[Segmenter],
    scan: Scan,
    index: int,
    title: str,
    folder: Path,
    reference: NDArray[np.bool_] | None,
) -> None:
    model = next((one for one in models if isinstance(one.predictor.network, ResUNet)), None)
    if model is None:
        return
    network = model.predictor.network
    assert isinstance(network, ResUNet)
    slices = HounsfieldSlices(scan, model.intensity)
    anatomy = model.find_anatomy(scan, slices)
    x, y, _ = box = model.visible_box(scan, slices, anatomy)
    image = model.network_slice(slices, index, box, model.visible_lungs(anatomy))[None, None].to(model.device)
    seen = [("input", image[0, 0].cpu().numpy())]
    truth = {} if reference is None else truth_maps(reference[x, y], image)
    if network.heads:
        stages = [*seen, *stage_maps(network, image).items(), *truth.items()]
        _draw(stages, f"Supervised stages, {title}", folder / "stages.png")
    if isinstance(network.fusion, AttentionFusion):
        fused = [*seen, *fusion_maps(network, image).items(), *list(truth.items())[:1]]
        _draw(fused, f"Attention fusion, {title}", folder / "fusion.png")


def _draw(panels: Sequence[tuple[str, Picture]], title: str, path: Path) -> None:
    """Draw a row of pictures, radiological: (X, Y) maps in grey, (Y, X, 3) in colour."""
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.9 * rows + 0.6), layout="constrained")
    for place, (name, picture) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        if picture.ndim == 3:
            axes.imshow(picture)
        else:
            low, high = float(picture.min()), float(picture.max())
            axes.imshow(picture.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            name = f"{name}\n{low:.2f} to {high:.2f}"
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11, parse_math=False)
    figure.savefig(path, dpi=110)
