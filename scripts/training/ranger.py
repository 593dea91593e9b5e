"""Ranger, the optimizer of CARes-UNet (Xu et al. 2021): RAdam, gradient centralisation, Lookahead.

Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020 (arXiv
1908.03265); Yong et al., "Gradient centralization", ECCV 2020 (arXiv 2004.01461); Zhang et al.,
"Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019 (arXiv 1907.08610). RAdam is
torch's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT
from torch.optim.radam import radam

from ..errors import SettingError


class Ranger(Optimizer):
    """RAdam on centralised gradients, whose weights are drawn back to slow ones every k steps.

    Each step, for every parameter theta that has a gradient g:

        g <- g - mean of g over all axes but the first, where it has more than one axis
        theta <- RAdam(theta, g)
        every k-th step: phi <- phi + alpha * (theta - phi), theta <- phi

    phi begins as the weights before the first step. Every parameter has its own phi and its own
    count of steps. Both are part of `state_dict`, so that a run resumes from it. A parameter
    without gradient is left alone.

    Args:
        params: parameters or groups of them; a group may have settings of its own.
        lr: learning rate.
        betas: decay of the means of gradient and squared gradient.
        eps: added to the root of the mean squared gradient.
        k: steps from one slow step to the next.
        alpha: fraction of the way from slow to fast weights that a slow step goes.
        weight_decay: L2 penalty, added to the centralised gradient as torch's RAdam does.

    Raises:
        ValueError: if a setting is outside what is expected.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        k: int = 6,
        alpha: float = 0.5,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "k": k, "alpha": alpha, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with the defaults where it has no settings of its own."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name, valid, expected in (
            ("lr", group["lr"] >= 0, "0 and more"),
            ("betas", all(0 <= beta < 1 for beta in group["betas"]), "two of 0 <= beta < 1"),
            ("eps", group["eps"] >= 0, "0 and more"),
            ("k", group["k"] >= 1, "1 and more"),
            ("alpha", 0 < group["alpha"] <= 1, "0 < alpha <= 1"),
            ("weight_decay", group["weight_decay"] >= 0, "0 and more"),
        ):
            if not valid:
                raise SettingError(f"{name} is {group[name]}; expected: {expected}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: computes the loss and its gradients anew; optional.

        Returns:
            What the closure returned, otherwise None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state_of(parameter) for parameter in parameters]
            radam(
                parameters,
                [_centralised(parameter.grad) for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [state["step"] for state in states],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group.get("weight_decay", 0.0),  # absent in states of earlier versions
                eps=group["eps"],
            )
            for parameter, state in zip(parameters, states, strict=True):
                if int(state["step"]) % group["k"] == 0:
                    parameter.copy_(state["slow"].lerp_(parameter, group["alpha"]))
        return loss

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the parameter's state; at its first step that of one that has made none."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the CPU, as torch's optimizers count
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["slow"] = parameter.clone()
        return state


def _centralised(gradient: Tensor) -> Tensor:
    """Take from the gradient (N, ...) the mean of each of its N rows; a vector stays as it is."""
    if gradient.ndim < 2:
        return gradient
    return gradient - gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True)
