"""`python -m scripts monai_label ...`: the MONAI Label app and the checkpoints that it trained."""

from __future__ import annotations

from ..monai_label import checkpoints
from ..monai_label.deployment import assemble, sample_app, start_command

DEPLOYMENT = "out/monailabel"


def _assemble(weights: str, deployment: str = DEPLOYMENT) -> None:
    """Makes or renews the app around trained weights and prints the command that starts the server.

    `make monailabel` calls this with MONAI Label's interpreter.

    Args:
        weights: trained weights with their metadata; they become a checkpoint of the deployment.
        deployment: folder to make or renew; checkpoints and studies in it stay.
    """
    name = assemble(deployment, str(weights), sample_app())
    in_use = checkpoints.active(deployment)
    print(f"{name}: assembled in {deployment}/app, checkpoint in use: {in_use}. Stop a running server, then start it:")
    print(f"\n{start_command(deployment, name)}\n")


def _checkpoints(deployment: str = DEPLOYMENT) -> None:
    """Lists the checkpoints: which is in use, from which and on what each was trained, what it reached.

    Args:
        deployment: the app's folder.
    """
    print(checkpoints.table(deployment).to_string(index=False))


def _back(deployment: str = DEPLOYMENT) -> None:
    """Goes back to the checkpoint that the one in use was trained from; no checkpoint is removed.

    Args:
        deployment: the app's folder.
    """
    print(f"in use: {checkpoints.back(deployment)}")


def _use(checkpoint: str, deployment: str = DEPLOYMENT) -> None:
    """Makes a checkpoint the one in use; a running server takes it with its next answer.

    Args:
        checkpoint: a name that `checkpoints` lists.
        deployment: the app's folder.
    """
    print(f"in use: {checkpoints.use(deployment, str(checkpoint))}")


MONAI_LABEL = {"assemble": _assemble, "checkpoints": _checkpoints, "back": _back, "use": _use}
