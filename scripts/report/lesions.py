"""Find the lesions: 26-connected components of the infection, slice by slice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

LISTED = 50  # largest number of lesions that are described one by one
_ALL_NEIGHBOURS = np.ones((3, 3), bool)
BOTH_LUNGS, OUTSIDE = "both lungs", "outside of the lungs"
BOTH_PERCENT = 10
"""A lesion is of both lungs from this percentage of its voxels in the lungs on that lie in the
lesser one. Fewer are the border between the lungs, which is uncertain where they touch."""

_FAR = np.iinfo(np.int64).max

Counts = NDArray[np.int64]
Plane = NDArray[np.integer[Any]]


class LesionFinder:
    """Join connected components of consecutive axial slices, holding two slices at a time.

    Two voxels of neighbouring slices are 26-connected if their positions in the plane differ by at
    most one along either axis. The components of each slice are the nodes of a graph and such
    contacts its edges. Lesions are the connected components of the graph.
    """

    def __init__(self) -> None:
        self._previous: tuple[int, Plane] | None = None
        self._nodes = 0
        self._edges: list[NDArray[np.int64]] = []
        self._rows: list[NDArray[np.int64]] = []
        self._ends: list[NDArray[np.int64]] = []

    def add(self, z: int, infected: NDArray[np.bool_], lung: NDArray[np.uint8] | None) -> None:
        """Add the next slice with infection (X, Y); indices `z` rise from call to call.

        `lung` is 0 none, 1 right, 2 left; None if unknown.
        """
        parts, count = ndimage.label(infected, _ALL_NEIGHBOURS)
        x, y = np.nonzero(parts)
        part = parts[x, y]
        ends = [(rows.start, rows.stop - 1, cols.start, cols.stop - 1) for rows, cols in ndimage.find_objects(parts)]
        self._ends.append(np.array(ends, np.int64).reshape(-1, 4))
        if self._previous is not None and self._previous[0] == z - 1:
            self._edges.append(self._contacts(self._previous[1], parts, x, y))
        side = np.zeros_like(part) if lung is None else lung[x, y]
        columns = [np.bincount(part, weights, count + 1) for weights in (None, x, y, side == 1, side == 2)]
        columns.append(np.full(count + 1, z))
        self._rows.append(np.stack(columns, axis=1).astype(np.int64)[1:])
        parts[x, y] += self._nodes
        self._previous = (z, parts)
        self._nodes += count

    def _contacts(self, below: Plane, parts: Plane, x: Counts, y: Counts) -> NDArray[np.int64]:
        """Return pairs of touching nodes of the slice before and this one, (N, 2)."""
        framed = np.pad(below, 1).astype(np.int64)
        part, radix = parts[x, y], int(parts.max()) + 1
        around = [(dx, dy) for dx in range(3) for dy in range(3)]
        keys = [np.unique(framed[x + dx, y + dy] * radix + part) for dx, dy in around]  # a pair as one number
        node, part = np.divmod(np.unique(np.concatenate(keys)), radix)
        touching = node > 0
        return np.stack([node, part + self._nodes], axis=1)[touching] - 1

    def table(self) -> dict[str, Counts]:
        """Return one entry per lesion, the largest first.

        The columns are "voxels", "sum_x", "sum_y", "sum_z" (sums of indices), "right", "left"
        (voxels in each lung), the ends of the lesion "first_x", "last_x", "first_y", "last_y",
        "first_z", "last_z", and "largest_z", the slice with most of its voxels.
        """
        nodes = np.concatenate([np.zeros((0, 6), np.int64), *self._rows])
        edges = np.concatenate([np.zeros((0, 2), np.int64), *self._edges])
        graph = sparse.coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (len(nodes), len(nodes)))
        count, lesion = sparse.csgraph.connected_components(graph, directed=False) if len(nodes) else (0, nodes[:, 0])
        voxels, z = nodes[:, 0], nodes[:, 5]
        sums, first, last = np.zeros((count, 6), np.int64), np.full((count, 3), _FAR), np.full((count, 3), -1)
        np.add.at(sums, lesion, np.column_stack([nodes[:, :5], voxels * z]))
        ends = np.concatenate([np.zeros((0, 4), np.int64), *self._ends])
        np.minimum.at(first, lesion, np.column_stack([ends[:, [0, 2]], z]))
        np.maximum.at(last, lesion, np.column_stack([ends[:, [1, 3]], z]))
        table = dict(zip(("voxels", "sum_x", "sum_y", "right", "left", "sum_z"), sums.T, strict=True))
        for axis, name in enumerate("xyz"):
            table |= {f"first_{name}": first[:, axis], f"last_{name}": last[:, axis]}
        table["largest_z"] = _largest_slices(lesion, z, voxels, count)
        order = np.argsort(-table["voxels"], kind="stable")
        return {name: column[order] for name, column in table.items()}


def _largest_slices(lesion: Counts, z: Counts, voxels: Counts, count: int) -> Counts:
    """Return the largest slice of each lesion, of equal ones the most inferior, (count,)."""
    depth = int(z.max()) + 1 if len(z) else 1
    places, place = np.unique(lesion * depth + z, return_inverse=True)
    areas = np.bincount(place, voxels, len(places)).astype(np.int64)
    largest = np.zeros(count, np.int64)
    order = np.lexsort((-places, areas))  # what is written last stays
    largest[places[order] // depth] = places[order] % depth
    return largest


def describe_lesions(finder: LesionFinder, depth: int, voxel_ml: float | None, lungs_known: bool) -> dict[str, Any]:
    """Describe the lesions of slices added to a finder, from large to small.

    Of `depth` axial slices the last is the most superior. Without `voxel_ml` there are no volumes.

    Returns:
        {"connectivity", "lesion_count", "listed_count", "largest_voxels", "largest_ml", "lesions"}.
        A centroid is an index along left, posterior, superior from 0; the first and the last slice
        are counted from 1, and so is the slice with the largest area. "box_index" holds first and
        last index along each axis. The side of a lesion is stated where the lungs are known.
    """
    table = finder.table()
    sizes = table["voxels"]
    total = int(sizes.sum())
    listed = [{name: int(column[k]) for name, column in table.items()} for k in range(min(len(sizes), LISTED))]
    summary: dict[str, Any] = {"connectivity": "26 neighbours", "lesion_count": len(sizes), "listed_count": len(listed)}
    summary["largest_voxels"] = int(sizes[0]) if total else 0
    if voxel_ml is not None:
        summary["largest_ml"] = summary["largest_voxels"] * voxel_ml
    return {**summary, "lesions": [_describe(one, total, depth, voxel_ml, lungs_known) for one in listed]}


def _describe(one: dict[str, int], total: int, depth: int, voxel_ml: float | None, lungs_known: bool) -> dict[str, Any]:
    voxels = one["voxels"]
    row: dict[str, Any] = {"infection_voxels": voxels, "infection_percent": 100 * voxels / total}
    if voxel_ml is not None:
        row["volume_ml"] = voxels * voxel_ml
    row["centroid_index"] = [one[name] / voxels for name in ("sum_x", "sum_y", "sum_z")]
    row["box_index"] = [[one[f"first_{axis}"], one[f"last_{axis}"]] for axis in "xyz"]
    row["largest_slice_from_superior"] = depth - one["largest_z"]
    row["largest_slice_from_inferior"] = one["largest_z"] + 1
    row["slices_from_superior"] = [depth - one["last_z"], depth - one["first_z"]]
    row["slices_from_inferior"] = [one["first_z"] + 1, one["last_z"] + 1]
    row["side"] = _side(one["right"], one["left"]) if lungs_known else None
    return row


def _side(right: int, left: int) -> str:
    """Say in which lung a lesion lies that has so many voxels in each.

    >>> [_side(*voxels) for voxels in ((90, 10), (91, 9), (0, 1), (0, 0))]
    ['both lungs', 'right', 'left', 'outside of the lungs']
    """
    if not right + left:
        return OUTSIDE
    if 100 * min(right, left) >= BOTH_PERCENT * (right + left):
        return BOTH_LUNGS
    return "right" if right > left else "left"
