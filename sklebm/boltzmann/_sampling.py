"""What a restricted Boltzmann machine draws: block Gibbs chains from rows or from the base rate."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import resolve_device, row_slices
from sklebm.boltzmann._likelihood import LikelihoodEstimator
from sklebm.energies import BilinearEnergy
from sklebm.inference import gibbs
from sklebm.inference.gibbs import GibbsState
from sklebm.inference.gibbs_langevin import GibbsLangevin


class SamplingEstimator(LikelihoodEstimator):
    """A machine that draws rows."""

    # Least and largest state of a visible unit.
    _visible_range = (-math.inf, math.inf)

    def gibbs(self, X: Any, n_steps: int = 1, *, random_state: RandomState = None) -> Any:
        """Move rows by block Gibbs steps, which leave the model's distribution invariant.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Visible states to start from.
        n_steps : int, default=1
            Number of steps, each a draw of all hidden and then all visible units.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        V : array or tensor of shape (n_samples, n_features)
            Visible states: 0 or 1, or real values.
        """
        _check_count("n_steps", n_steps)
        check_is_fitted(self)
        seed = draw_seed(random_state)
        generators: dict[torch.device, torch.Generator] = {}

        def move(energy: BilinearEnergy, v: torch.Tensor) -> torch.Tensor:
            if v.device not in generators:
                generators[v.device] = make_generator(seed, "gibbs", device=v.device)
            generator = generators[v.device]
            state = gibbs.init(generator, v, energy)
            for _ in range(n_steps - 1):
                state = gibbs.step(generator, state, energy)
            return energy.draw_visible(state.hidden, generator)

        return self._map_rows(X, move, "gibbs")

    def sample(
        self,
        n_samples: int = 1,
        *,
        n_steps: int = 1000,
        init: Any = None,
        clamped: Any = None,
        sampler: GibbsLangevin | None = None,
        random_state: RandomState = None,
    ) -> Any:
        """Draw rows from the model, by a block Gibbs chain for each.

        Draws are exact only in the limit of many steps; a machine with separated modes can need
        very many. With ``clamped``, the chains keep the known features of each row and draw the
        others given them: completion.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps of every chain.
        init : array-like of shape (n_features,) or (n_samples, n_features), default=None
            States that the chains start from; None starts from the units' base rate.
        clamped : array-like of shape (n_features,) or (n_samples, n_features), default=None
            Values of known features, NaN for those that are drawn. One row holds for all chains.
        sampler : GibbsLangevin, default=None
            How real-valued visible units move in a step; None draws them anew given the hidden
            units, which is block Gibbs.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Visible states, float32; those of binary units are 0 or 1 where they are drawn.
        """
        _check_count("n_samples", n_samples)
        _check_count("n_steps", n_steps)
        check_is_fitted(self)
        shape = (int(n_samples), int(self.n_features_in_))
        limits = self._visible_range
        start = None if init is None else _chain_rows("init", init, shape, limits)
        self._check_sampler(sampler)
        known = None
        if clamped is not None:
            known = _chain_rows("clamped", clamped, shape, limits, missing=True)
        seed = draw_seed(random_state)
        device = resolve_device(self.device, None, self._prefers_cuda)
        generator = make_generator(seed, "sampling", device=device)
        energy = self._energy(device)
        mean = torch.from_numpy(self.feature_means_.clip(*limits)).to(device, torch.float32)
        out = np.empty(shape, dtype=np.float32)
        with torch.no_grad():
            for part in row_slices(n_samples, self._floats_per_row()):
                if start is None:
                    base = mean.expand(len(out[part]), -1).contiguous()
                    v = energy.visible.draw(base, generator)
                else:
                    v = start[part].to(device)
                keep = None if known is None else known[part].to(device)
                out[part] = _run_chains(energy, v, keep, n_steps, sampler, generator).cpu().numpy()
        return out

    def _check_sampler(self, sampler: Any) -> None:
        if sampler is None:
            return
        if not isinstance(sampler, GibbsLangevin):
            raise ValueError(
                f"sampler={sampler!r} must be a GibbsLangevin(), or None for block Gibbs."
            )
        if math.isfinite(self._visible_range[1]):
            raise ValueError(
                f"GibbsLangevin moves real-valued visible units; those of {type(self).__name__} "
                "are bits: leave sampler=None, which is block Gibbs."
            )


def _run_chains(
    energy: BilinearEnergy,
    v: torch.Tensor,
    known: torch.Tensor | None,
    n_steps: int,
    sampler: GibbsLangevin | None,
    generator: torch.Generator,
) -> torch.Tensor:
    """The visible states after ``n_steps`` that leave known features as they are."""

    def keep(states: torch.Tensor) -> torch.Tensor:
        return states if known is None else torch.where(known.isnan(), states, known)

    given = None if known is None else ~known.isnan()
    v = keep(v)
    for _ in range(n_steps):
        h = energy.draw_hidden(v, generator)
        if sampler is None:
            v = keep(energy.draw_visible(h, generator))
        else:
            v, _info = sampler.move_visible(generator, GibbsState(v, h), energy, given)
    return v


def _chain_rows(
    name: str,
    values: Any,
    shape: tuple[int, int],
    limits: tuple[float, float],
    *,
    missing: bool = False,
) -> torch.Tensor:
    """One float32 row for each chain; refuses other shapes and values outside the limits."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    array = np.asarray(values, dtype=np.float32)
    if array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"{name} has shape {array.shape}, but must be one row of {shape[1]} features or "
            f"{shape[0]} of them (n_samples)."
        )
    given = array[~np.isnan(array)] if missing else array
    low, high = limits
    if not ((given >= low) & (given <= high) & np.isfinite(given)).all():
        where = f"values in [{low:g}, {high:g}]" if math.isfinite(high) else "finite values"
        what = " or NaN, for features to draw" if missing else ""
        raise ValueError(f"{name} must hold {where}{what}.")
    return torch.from_numpy(np.array(np.broadcast_to(array, shape)))


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
