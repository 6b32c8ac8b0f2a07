"""Typed protocols of energies: what objectives, samplers and estimators may require of them.

An energy is a torch module with some of these methods, whatever its base class. Rows x are
(n_rows, d), latents z (n_rows, k); energies are in nats, one per row. Objectives and samplers list
required methods in ``needs``; a missing one raises an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sklebm.energies.gradients import Gradients
from sklebm.energies.units import Units


class Reference(Protocol):
    """A known density near the data: noise for comparison, start of chains and of annealing."""

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n_rows, d)."""
        ...

    def log_density(self, x: Tensor) -> Tensor:
        """log q(x), (n_rows,)."""
        ...

    def free_energy(self, x: Tensor) -> Tensor:
        """-log q(x), (n_rows,): an energy whose normaliser is 1."""
        ...

    def scale(self) -> Tensor:
        """Root of the mean variance of a feature, a scalar."""
        ...


@runtime_checkable
class FreeEnergy(Protocol):
    """An energy of rows alone: log p(x) = -F(x) - log Z."""

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x), (n_rows,)."""
        ...


@runtime_checkable
class ReferencedEnergy(FreeEnergy, Protocol):
    """A free energy with a known reference density."""

    @property
    def reference(self) -> Reference:
        """The density q."""
        ...


class NormalisedEnergy(ReferencedEnergy, Protocol):
    """An energy with log Z as a parameter."""

    log_partition: nn.Parameter


class SmoothEnergy(FreeEnergy, Protocol):
    """An energy with derivatives in closed form."""

    @property
    def has_closed_derivatives(self) -> bool:
        """Whether ``gradient_and_laplacian`` may be called."""
        ...

    def gradient_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """dF (n_rows, d) and its divergence (n_rows,)."""
        ...


class FlippableEnergy(FreeEnergy, Protocol):
    """An energy of bits with closed-form differences to neighbouring states."""

    visible: Units

    def flip_differences(self, v: Tensor) -> Tensor:
        """F(v with bit i flipped) - F(v), (n_rows, d)."""
        ...


class LatentEnergy(Protocol):
    """An energy of rows and latents."""

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z), (n_rows,)."""
        ...


class PosteriorEnergy(LatentEnergy, FreeEnergy, Protocol):
    """An energy whose latents are independent bits given the row, summed in closed form."""

    def hidden_mean(self, x: Tensor) -> Tensor:
        """E[z | x], (n_rows, k)."""
        ...


class AmortizedPosterior(LatentEnergy, Protocol):
    """An energy with a learnt q(z | x)."""

    is_reparametrized: bool

    def posterior(self, x: Tensor) -> Any:
        """q(z | x), with ``draw``, ``log_density`` and ``detach``."""
        ...

    def draw_noise(self, *shape: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Noise for draws from q."""
        ...


class AlternatingEnergy(Protocol):
    """An energy whose units form two groups, each independent given the other."""

    def draw_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of p(v | h) for each row."""
        ...

    def draw_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of p(h | v) for each row."""
        ...


class TwoLayerEnergy(AlternatingEnergy, PosteriorEnergy, Protocol):
    """Two layers of units and the weights between them: every restricted Boltzmann machine."""

    visible: Any
    hidden: Any
    weights: Any

    def hidden_field(self, v: Tensor) -> Tensor:
        """Input of the hidden units, (n_rows, k)."""
        ...

    def visible_field(self, h: Tensor) -> Tensor:
        """Input of the visible units, (n_rows, d)."""
        ...

    def free_energy_gradients(
        self, v: Tensor, signs: Tensor, field: Tensor, mean: Tensor
    ) -> tuple[Tensor, Gradients]:
        """A scalar and the gradients of ``signs @ free_energy(v)``."""
        ...


class RetunableEnergy(TwoLayerEnergy, Protocol):
    """A machine that can be copied with other parameters."""

    with_parameters: Callable[..., TwoLayerEnergy]


class Reconstructing(Protocol):
    """An energy |x - decode(encode(x))|^2, or of corrupted rows through ``reconstruct``."""

    encoder: Any

    def encode(self, x: Tensor) -> Tensor:
        """The code of each row."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction of each code."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstruction of each row."""
        ...
