"""One batch, three sizes, three steps of the optimizer with clipped gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import IterationEvents, SupervisedTrainer
from torch import Tensor, nn

from scripts.training.multi_scale import MultiScaleTrainer, resized_label, scaled_size
from scripts.transforms.items import UNKNOWN


class Recorder(nn.Module):
    """A single weight; remembers the images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.images: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.images.append(image.detach().clone())
        return image * self.weight[0] + self.weight[1]


def batches(count: int, size: int = 8) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "image": torch.rand(2, 1, size, size, generator=generator),
            "label": (torch.rand(2, 2, size, size, generator=generator) < 0.5).float(),
            "name": ["a", "b"],
        }
        for _ in range(count)
    ]


def make(
    network: nn.Module, data: list[dict[str, Any]], loss: Callable[..., Tensor], lr: float = 0.25, **arguments: Any
) -> MultiScaleTrainer:
    settings = {"scales": [0.5, 1, 1.5], "size_multiple": 4, "clip_value": 0.5, "max_epochs": 1, **arguments}
    return MultiScaleTrainer(
        device="cpu",
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=loss,
        **settings,
    )


def squares(logits: Tensor, label: Tensor) -> Tensor:
    return (logits - label[:, :1]).square().mean()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((352, 352), [[256, 256], [352, 352], [448, 448]]),  # 264 / 32 = 8.25, 440 / 32 = 13.75
        ((256, 256), [[192, 192], [256, 256], [320, 320]]),
        ((32, 128), [[32, 96], [32, 128], [32, 160]]),
    ],
)
def test_sizes_of_the_paper(size: tuple[int, int], expected: list[list[int]]) -> None:
    assert [scaled_size(size, scale, 32) for scale in (0.75, 1, 1.25)] == expected
    assert scaled_size((8, 200), 0.75, 32) == [32, 160]


def corner_resize(x: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, corners on corners, of (B, C, n, n): output k lies at k * (n - 1) / (size - 1)."""
    n = x.shape[-1]
    matrix = np.zeros((size, n))
    for k in range(size):
        position = k * (n - 1) / (size - 1)
        low = min(int(position), n - 1)
        matrix[k, low] += 1 - (position - low)
        matrix[k, min(low + 1, n - 1)] += position - low
    return np.einsum("ih,bchw,jw->bcij", matrix, x, matrix)


def test_a_batch_makes_a_step_at_every_size() -> None:
    network, (data,) = Recorder(), batches(1)
    steps: list[list[float]] = []
    trainer = make(network, [data], squares)
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(network.weight.tolist()))
    trainer.run()

    sizes = (4, 8, 12)
    assert [tuple(image.shape) for image in network.images] == [(2, 1, size, size) for size in sizes]
    weight, expected, losses = np.array([1.0, 0.0]), [], []
    for size, seen in zip(sizes, network.images, strict=True):
        image, label = (corner_resize(data[key].double().numpy(), size) for key in ("image", "label"))
        np.testing.assert_allclose(seen.numpy(), image, atol=1e-6)
        residual = weight[0] * image + weight[1] - label[:, :1]
        losses.append((residual**2).mean())
        gradient = np.array([(2 * residual * image).mean(), (2 * residual).mean()])
        weight = weight - 0.25 * gradient.clip(-0.5, 0.5)
        expected.append(weight)
    np.testing.assert_allclose(steps, expected, atol=1e-6)

    # The state is that of the last size, with the mean loss; the batch that the loader owns stays
    # as it was.
    assert trainer.state.iteration == 1
    assert [item["loss"] for item in trainer.state.output] == pytest.approx([np.mean(losses)] * 2)
    assert [tuple(item["label"].shape) for item in trainer.state.output] == [(2, 12, 12)] * 2
    assert [item["name"] for item in trainer.state.batch] == ["a", "b"]
    assert data["image"].shape == (2, 1, 8, 8)


def test_an_iteration_is_a_batch() -> None:
    events: list[str] = []
    trainer = make(Recorder(), batches(2), squares)
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda: events.append("pass"))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: events.append("batch"))
    trainer.run()
    assert events == ["pass", "pass", "pass", "batch"] * 2


@pytest.mark.parametrize("factor", [1000.0, -1000.0, 0.1])
def test_every_component_of_the_gradient_is_clipped(factor: float) -> None:
    """Its value, not its norm: a large component leaves a small one as it is."""
    network = Recorder()

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        return factor * network.weight[0] + 0.25 * network.weight[1] + 0 * logits.sum()

    make(network, batches(1), loss, lr=1.0).run()
    step = float(np.clip(factor, -0.5, 0.5))
    assert network.weight.tolist() == pytest.approx([1 - 3 * step, -3 * 0.25])


def test_gradients_of_mixed_precision_are_clipped_unscaled() -> None:
    network = Recorder()
    trainer = make(network, batches(1), squares)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.scaler.scale(3 * network.weight[0] - 0.25 * network.weight[1]).backward()
    trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
    assert network.weight.grad.tolist() == [0.5, -0.25]


def test_one_scale_without_clipping_is_monais_trainer() -> None:
    data, network, reference = batches(3), Recorder(), Recorder()
    trainer = make(network, data, squares, scales=[1], clip_value=1e9)
    trainer.run()
    plain = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=data,
        network=reference,
        optimizer=torch.optim.SGD(reference.parameters(), lr=0.25),
        loss_function=squares,
    )
    plain.run()
    assert torch.equal(network.weight, reference.weight)
    assert trainer.state.output[0]["loss"] == plain.state.output[0]["loss"]


@pytest.mark.parametrize(
    "arguments", [{"scales": []}, {"scales": [1, 0]}, {"scales": [-1]}, {"size_multiple": 0}, {"clip_value": 0.0}]
)
def test_bad_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(arguments))}.*expected"):
        make(Recorder(), batches(1), squares, **arguments)


def test_a_resized_label_is_unknown_where_it_touches_an_unknown_pixel() -> None:
    label = torch.tensor([[[[1.0, 0.0, UNKNOWN, 0.0, 1.0]]]])
    assert resized_label(label, (1, 9)).tolist() == [[[[1.0, 0.5, 0.0, UNKNOWN, UNKNOWN, UNKNOWN, 0.0, 0.5, 1.0]]]]
    assert torch.equal(resized_label(label, (1, 5)), label)
