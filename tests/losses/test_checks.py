"""What a training asks of its loss."""

from __future__ import annotations

import pytest
import torch

from scripts.errors import UserError, find_user_error
from scripts.losses.checks import training_loss
from scripts.losses.cosupervision import CoSupervisionLoss
from scripts.losses.deep_dice_bce import DeepDiceBCELoss
from scripts.losses.dice_cross_entropy import DiceCrossEntropyLoss
from scripts.losses.structure import InfNetLoss
from tests.chains import chain


@pytest.mark.parametrize("loss", [CoSupervisionLoss(), InfNetLoss(), DiceCrossEntropyLoss()])
def test_losses_that_leave_out_unknown_pixels_learn_from_more_labels(loss: torch.nn.Module) -> None:
    assert training_loss(loss, more_labels=True) is loss


@pytest.mark.parametrize("loss", [DeepDiceBCELoss(), torch.nn.BCEWithLogitsLoss()])
def test_losses_that_would_look_at_unknown_pixels_do_not(loss: torch.nn.Module) -> None:
    assert training_loss(loss, more_labels=False) is loss
    with pytest.raises(UserError, match=f"more_labels is true and the loss {type(loss).__name__}; expected: CoSup"):
        training_loss(loss, more_labels=True)


def test_a_word_is_no_loss() -> None:
    with pytest.raises(UserError, match="loss is 'dice'; expected: a definition"):
        training_loss("dice", more_labels=False)


def test_the_configs_ask() -> None:
    assert isinstance(chain("loss_module", "networks/cares_unet", more_labels=True), DiceCrossEntropyLoss)
    with pytest.raises(RuntimeError) as caught:
        chain("loss_module", "multiclass", more_labels=True)
    assert "more_labels is true and the loss BCEWithLogitsLoss" in str(find_user_error(caught.value))
