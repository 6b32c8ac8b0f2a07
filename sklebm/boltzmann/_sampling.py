"""What a restricted Boltzmann machine draws: block Gibbs chains from rows or from the base rate."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._random import RandomState, draw_seed, make_generator
from sklebm._rows import resolve_device, row_slices
from sklebm.boltzmann._likelihood import LikelihoodEstimator
from sklebm.energies import BilinearEnergy
from sklebm.inference import gibbs


class SamplingEstimator(LikelihoodEstimator):
    """A machine that draws rows."""

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
            Visible states, 0 or 1.
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
        random_state: RandomState = None,
    ) -> Any:
        """Draw rows from the model, by a block Gibbs chain for each.

        The chains start from the units' base rate. Draws are exact only in the limit of many
        steps; a machine with separated modes can need very many.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        n_steps : int, default=1000
            Gibbs steps of every chain.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Visible states, 0 or 1, float32.
        """
        _check_count("n_samples", n_samples)
        _check_count("n_steps", n_steps)
        check_is_fitted(self)
        seed = draw_seed(random_state)
        device = resolve_device(self.device, None, self._prefers_cuda)
        generator = make_generator(seed, "sampling", device=device)
        energy = self._energy(device)
        mean = torch.from_numpy(self.feature_means_.clip(0.0, 1.0)).to(device, torch.float32)
        out = np.empty((n_samples, len(mean)), dtype=np.float32)
        with torch.no_grad():
            for part in row_slices(n_samples, self._floats_per_row()):
                start = mean.expand(len(out[part]), -1).contiguous()
                v = energy.visible.draw(start, generator)
                for _ in range(n_steps):
                    v = energy.draw_visible(energy.draw_hidden(v, generator), generator)
                out[part] = v.cpu().numpy()
        return out


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
