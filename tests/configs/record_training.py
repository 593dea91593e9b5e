"""Runs the training workflow for a few steps with BatchNorm in eval mode;
records losses and gradients."""

from typing import Any

import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents


def freeze(network: torch.nn.Module, _: object) -> None:
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()


def record(dataset: str, folder: str, *overlays: str) -> dict[str, Any]:
    """Returns the loss of every step, and the gradients (steps, parameters)."""
    flow = ConfigWorkflow(
        config_file=["configs/train.yaml", *overlays],
        workflow_type="train",
        meta_file="configs/metadata.json",
        logging_file="configs/logging.conf",
        dataset_dir=dataset,
        output_dir=folder,
        device="cpu",
        spatial_size=32,
        batch_size=4,
        max_epochs=1,
        val_interval=5,
        amp=False,
        **{"network_def#base_width": 4},
    )
    flow.initialize()
    network, trainer = flow.parser.get_parsed_content("network"), flow.parser.get_parsed_content("train#trainer")
    losses, gradients = [], []

    def note(engine: Engine) -> None:
        losses.append(engine.state.output["loss"].item())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]).clone())

    network.register_forward_pre_hook(freeze)
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, note)
    flow.run()
    return {"losses": losses, "gradients": torch.stack(gradients)}
