"""`python -m scripts monai_label ...`: the MONAI Label app and the checkpoints that it trained."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Deployment = Annotated[Path, Option(help="Folder of the app.")]
DEPLOYMENT = Path("out/monailabel")


def assemble(
    weights: Annotated[Path, Argument(help="Weights with their metadata; they become a checkpoint of the app.")],
    deployment: Deployment = DEPLOYMENT,
) -> None:
    """Make or renew the app around trained weights.

    Prints the command that starts the server. Checkpoints and studies stay.
    Needs MONAI Label's interpreter, see `make monailabel`.
    """
    from ..monai_label.checkpoints import active
    from ..monai_label.deployment import assemble as assemble_app
    from ..monai_label.deployment import sample_app, start_command

    name = assemble_app(deployment, weights, sample_app())
    in_use = active(deployment)
    print(f"{name}: assembled in {deployment}/app, checkpoint in use: {in_use}. Stop a running server, then start it:")
    print(f"\n{start_command(deployment, name)}\n")


def checkpoints(deployment: Deployment = DEPLOYMENT) -> None:
    """List the checkpoints with parent, training data and figures."""
    from ..monai_label.checkpoints import table

    print(table(deployment).to_string(index=False))


def back(deployment: Deployment = DEPLOYMENT) -> None:
    """Return to the checkpoint that the one in use was trained from.

    No checkpoint is removed.
    """
    from ..monai_label import checkpoints

    print(f"in use: {checkpoints.back(deployment)}")


def use(
    checkpoint: Annotated[str, Argument(help="A name that `checkpoints` lists.")], deployment: Deployment = DEPLOYMENT
) -> None:
    """Use another checkpoint, from the server's next answer on."""
    from ..monai_label import checkpoints

    print(f"in use: {checkpoints.use(deployment, checkpoint)}")
