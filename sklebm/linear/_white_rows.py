"""Rows by the principal axes of their correlations, held in memory or made when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklebm._shell.rows import Rows, chunk_size
from sklebm._shell.warning import warn
from sklebm.linear._base import resolution_of
from sklebm.linear._moments import covariance_of, empty_moments, stream_moments
from sklebm.linear._spectrum import spectrum_of

# Directions without variance get so much of that of a standardised feature, as in whiteners.
_LEAST_NOISE = 1e-6
# White numbers handed out at once: few enough for the cache, enough for two threads.
_CHUNK = 2**16


class WhiteRows(NamedTuple):
    """Rows by their principal axes: x = m + c * (V' L^1/2 z + noise).

    ``held`` are all z where they stay in memory. ``rows`` are the x from which others are made.
    """

    rows: Rows
    held: Tensor | None
    mean: Tensor
    scales: Tensor
    directions: Tensor
    deviations: Tensor
    noise_variance: float

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def parts(self) -> Iterator[Tensor]:
        """All z, in order."""
        if self.held is not None:
            yield from torch.split(self.held, max(512, _CHUNK // len(self.directions)))
            return
        for part in self.rows.chunks(3 * self.rows.shape[1]):
            yield self._whitened(self.rows[part])

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, float]]:
        """All z once, in random batches, each with its share of ``size``.

        Rows on disk are read in runs of neighbours that fit in memory, in random order, and
        shuffled within each.
        """
        blocks = [slice(0, self.n_rows)]
        if self.rows.is_lazy:
            blocks = self.rows.source.blocks(chunk_size(self.n_rows, self.rows.shape[1]))
        for number in torch.randperm(len(blocks), generator=generator).tolist():
            block = blocks[number]
            run = self.rows[block] if self.rows.is_lazy else None
            order = torch.randperm(block.stop - block.start, generator=generator)
            for index in torch.split(order, size):
                share = len(index) / size
                if self.held is not None:
                    yield self.held[index.to(self.held.device)], share
                elif run is not None:
                    yield self._whitened(run[index.to(run.device)]), share
                else:
                    yield self._whitened(self.rows[index]), share

    def _whitened(self, x: Tensor) -> Tensor:
        whitening = (self.directions / self.deviations[:, None] / self.scales).T
        return (x.double() - self.mean) @ whitening


def white_rows(rows: Rows, n_wanted: int, name: str, *, hold: bool) -> WhiteRows:
    """Columns in units of their deviation, then by the principal axes of their correlations.

    With ``hold``, rows that are in memory are whitened once and stay there, in double precision.
    """
    n_features = rows.shape[1]
    moments = stream_moments(rows, empty_moments(n_features, rows.device))
    covariance = covariance_of(moments)
    if not bool(torch.isfinite(covariance).all()):
        raise FloatingPointError(
            f"{name}.fit: squares of X overflow. Scale X, for example with StandardScaler, and "
            "check for outliers. The estimator was left unchanged."
        )
    variances = covariance.diagonal()
    moving = variances > 0
    usual = variances[moving].mean() if bool(moving.any()) else torch.ones_like(variances[0])
    scales = torch.where(moving, variances, usual).sqrt()
    correlation = covariance / scales[:, None] / scales
    spectrum = spectrum_of(correlation, resolution_of(rows))
    rank = int(np.count_nonzero(spectrum.variances))
    n = max(min(n_wanted, rank), 1)  # one filter at least, of rows that are all equal too
    if n_wanted > rank:
        warn(
            f"X varies in {rank} directions only, so {name} has {n} filters instead of {n_wanted}: "
            "columns are constant or combinations of others, or there are too few rows."
        )
    noise = 0.0
    if n < n_features:
        noise = max(spectrum.rest(n) / (n_features - n), _LEAST_NOISE)
    kept = np.maximum(spectrum.variances[:n], 0.0 if rank else _LEAST_NOISE)
    directions = torch.from_numpy(np.ascontiguousarray(spectrum.directions[:n])).to(rows.device)
    deviations = torch.from_numpy(np.sqrt(kept)).to(rows.device)
    white = WhiteRows(rows, None, moments.mean, scales, directions, deviations, noise)
    if hold and not rows.is_lazy:
        # Column after column, for products with few filters.
        held = torch.cat([part.T for part in white.parts()], dim=1).T
        white = white._replace(held=held)
    return white
