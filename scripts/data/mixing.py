"""Batches of labelled and pseudo-labelled slices."""

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..errors import UserError
from .slices import SliceDataset, mix_seed


class PairedSlices(Dataset[list[dict[str, Any]]]):
    """Serve a labelled and a pseudo-labelled slice together, so that batches hold as many of both.

    An epoch is one pass over the labelled slices. The pseudo-labelled ones go round: every one of
    them comes once before any comes again, in an order that is drawn anew for every round. One that
    comes again in an epoch is augmented in another way. The data loader's collation flattens the
    pairs, so its batch size counts pairs.

    Raises:
        UserError: if either is empty.
    """

    def __init__(self, labelled: SliceDataset, pseudo: SliceDataset, seed: int = 0) -> None:
        for name, dataset in (("labelled", labelled), ("pseudo-labelled", pseudo)):
            if not len(dataset):
                raise UserError(f"no {name} slices; expected: at least one of each kind to pair")
        self.labelled = labelled
        self.pseudo = pseudo
        self.data = [*labelled.data, *pseudo.data]
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Make what is served that of an epoch, counted from 1."""
        self.epoch = epoch
        for dataset in (self.labelled, self.pseudo):
            dataset.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of pairs an epoch serves."""
        return len(self.labelled)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        """Return [labelled slice, pseudo-labelled slice]."""
        before = (self.epoch - 1) * len(self)
        turn, place = divmod(before + index, len(self.pseudo))
        order = np.random.default_rng(mix_seed(self.seed, turn)).permutation(len(self.pseudo))
        return [self.labelled[index], self.pseudo.serve(int(order[place]), turn - before // len(self.pseudo))]
