r"""Cells that sum up the past of a sequence: h_t = f(h_{t-1}, x_t), or of a window, causally.

A cell maps steps x of shape (n_steps, n_sequences, n_features) and a state to features h of shape
(n_steps, n_sequences, n_components) and the state after them. A state is a tuple of tensors of
shape (n_sequences, ...), so that sequences can go on where they stopped.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, ...]


class LinearCell(nn.Module):
    """h_t = W x_t + U h_{t-1} + b: a linear dynamical system, of which an AR(1) process is one."""

    has_state = True

    def __init__(self, n_features: int, n_components: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_components, n_features, device="meta"))
        self.recurrent = nn.Parameter(torch.empty(n_components, n_components, device="meta"))
        self.bias = nn.Parameter(torch.empty(n_components, device="meta"))
        self.start = nn.Parameter(torch.empty(n_components, device="meta"))

    def initial(self, n_sequences: int) -> State:
        """State before the first step."""
        return (self.start.expand(n_sequences, -1),)

    def features_of(self, state: State) -> Tensor:
        """What the state says about the step to come, (n_sequences, n_components)."""
        return state[0]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Features after each step, and the state after the last."""
        h, steps = state[0], []
        for drive in functional.linear(x, self.weight, self.bias):
            h = drive + h @ self.recurrent.T
            steps.append(h)
        return torch.stack(steps), (h,)


class RecurrentCell(nn.Module):
    """torch's recurrent networks: "rnn" (tanh), "gru" and "lstm"."""

    has_state = True

    def __init__(self, kind: str, n_features: int, n_components: int) -> None:
        super().__init__()
        make = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.net = make(n_features, n_components, device="meta")
        self.start = nn.Parameter(torch.empty(n_components, device="meta"))
        self.kind = kind

    def initial(self, n_sequences: int) -> State:
        """Learnt first features; the memory of an LSTM starts empty."""
        h = self.start.expand(n_sequences, -1)
        return (h, torch.zeros_like(h)) if self.kind == "lstm" else (h,)

    def features_of(self, state: State) -> Tensor:
        """What the state says about the step to come, (n_sequences, n_components)."""
        return state[0]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Features after each step, and the state after the last."""
        inner = tuple(part[None].contiguous() for part in state)
        h, last = self.net(x, inner if self.kind == "lstm" else inner[0])
        return h, tuple(part[0] for part in (last if self.kind == "lstm" else (last,)))


class ConvolutionalCell(nn.Module):
    """Causal convolutions over the last ``window`` steps: kernels of 2 at distances 1, 2, 4...

    A window of 1 has one kernel of 1. The state is the window; steps before the first are zeros.
    """

    has_state = False

    def __init__(self, n_features: int, n_components: int, window: int) -> None:
        super().__init__()
        n_layers = max(1, math.ceil(math.log2(window)))
        widths = [n_features, *[n_components] * n_layers]
        self.layers = nn.ModuleList(
            nn.Conv1d(n_in, n_out, min(window, 2), dilation=2**index, device="meta")
            for index, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        )
        self.n_features = n_features
        # Steps that a feature sees beside its own.
        self.n_before = 2**n_layers - 1 if window > 1 else 0

    def initial(self, n_sequences: int) -> State:
        """A window of zeros."""
        weight: Any = self.layers[0].weight
        return (weight.new_zeros(n_sequences, self.n_before + 1, self.n_features),)

    def features_of(self, state: State) -> Tensor:
        """What the window says about the step to come, (n_sequences, n_components)."""
        return self._convolved(state[0])[:, -1]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Features after each step, and the window after the last."""
        seen = torch.cat([state[0], x.transpose(0, 1)], dim=1)
        h = self._convolved(seen)[:, 1:]  # the first is that of the state
        return h.transpose(0, 1), (seen[:, -self.n_before - 1 :],)

    def _convolved(self, seen: Tensor) -> Tensor:
        """(n_sequences, n, n_features) to (n_sequences, n - n_before, n_components)."""
        h = seen.transpose(1, 2)
        for index, layer in enumerate(self.layers):
            new = torch.tanh(layer(h))
            # A shortcut keeps the recent steps audible through many layers.
            h = new if index == 0 else new + h[:, :, -new.shape[2] :]
        return h.transpose(1, 2)


CELLS = ("conv", "gru", "linear", "lstm", "rnn")


def make_cell(kind: str, n_features: int, n_components: int, window: int) -> nn.Module:
    """A cell of one of the ``CELLS`` on torch's meta device."""
    if kind == "conv":
        return ConvolutionalCell(n_features, n_components, window)
    if kind == "linear":
        return LinearCell(n_features, n_components)
    return RecurrentCell(kind, n_features, n_components)


def initialize_cell(cell: nn.Module, forget_bias: float, generator: torch.Generator) -> None:
    """Uniform weights of torch's usual size, zero biases, and gates of an LSTM that remember."""
    cell.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if parameter.dim() == 1:
                parameter.zero_()
            else:
                recurrent = "weight_hh" in name or name == "recurrent"
                fan_in = parameter.shape[1] * parameter[0, 0].numel()
                bound = (1.0 if recurrent else math.sqrt(3.0)) / math.sqrt(fan_in)
                parameter.uniform_(-bound, bound, generator=generator)
        if isinstance(cell, RecurrentCell) and cell.kind == "lstm":
            size = len(cell.start)  # gates in the order input, forget, memory, output
            cell.net.bias_ih_l0[size : 2 * size] = forget_bias
