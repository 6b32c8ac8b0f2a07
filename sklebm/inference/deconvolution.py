r"""z_l = argmin_z 1/2 |x - R_l z|^2 + alpha |z|_1 through pooled layers with fixed switches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sklebm.energies.deconvolution import DeconvolutionalEnergy, Switches
from sklebm.inference import proximal
from sklebm.inference.sparse import SparseSolution, solve_codes_by_kind
from sklebm.inference.sparse_problem import SparseProblem, certificate_kind

_CHECK_EVERY, _MAX_ITER = 10, 10_000
# Numbers in R_l up to which it is formed for each image.
_DENSE = 2**15
# Power iteration, and what it may fall short by.
_POWER_STEPS, _MARGIN = 8, 1.2


@dataclass(frozen=True)
class SwitchedProblem(SparseProblem):
    """Images to encode by a layer: synthesis and analysis go through all layers below.

    Parameters
    ----------
    network : DeconvolutionalEnergy
        Kernels and sizes.
    transfers : list of Tensor
        Spectra of the kernels up to this layer.
    switches : tuple of Tensor
        Of the layers below, one set for each image.
    """

    network: DeconvolutionalEnergy
    transfers: list[Tensor]
    switches: Switches

    def select(self, rows: Tensor) -> SwitchedProblem:
        """The problem of some of the rows."""
        return replace(
            self,
            correlations=self.correlations[rows],
            squared_norms=self.squared_norms[rows],
            switches=tuple(part[rows] for part in self.switches),
        )

    def product(self, z: Tensor) -> Tensor:
        """z times the Gram matrix of each image."""
        decoded = self.network.synthesise(z, self.switches, self.transfers)
        return self.network.analyse(decoded, self.switches, self.transfers)


def solve_switched(
    network: DeconvolutionalEnergy,
    x: Tensor,
    switches: Switches,
    layer: int,
    *,
    tol: float = 1e-4,
    max_iter: int | None = None,
) -> SparseSolution:
    """Find the code of minimum energy of a layer, given the switches of the layers below.

    Small problems on the CPU: compiled coordinate descent on the matrix R_l of each image. Others:
    accelerated proximal gradient steps from zero that never raise the energy of any image. The
    length of a step follows the curvature of each image's own layers, which power iteration
    estimates from below: it is halved for an image that a plain step would raise.

    Parameters
    ----------
    network : DeconvolutionalEnergy
        The layers; adaptive.
    x : Tensor of shape (n_rows, n_pixels)
        Images as rows.
    switches : tuple of Tensor
        Of the layers below.
    layer : int
        Which layer, 1 for that of the images.
    tol : float, default=1e-4
        Relative duality gap at which a code is final, or the limit of rounding if that is higher.
    max_iter : int, optional
        Accept codes as they are after so many steps. By default, those that are not final after
        10,000 are reported.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations.
    """
    transfers = network.transfers(layer)
    n_codes = math.prod(network.map_shape(layer))
    if x.device.type == "cpu" and n_codes * x.shape[1] <= _DENSE:
        return _solve_each(network, x, switches, layer, transfers, tol)
    bound = network.curvature(layer)
    problem = SwitchedProblem(
        network.analyse(x, switches, transfers),
        x.square().sum(dim=1),
        x.new_empty(0, 0),
        bound,
        network.penalty,
        network.alphas[layer - 1],
        network,
        transfers,
        switches,
    )
    curvature = _curvature_of_rows(problem.product, problem.correlations).clamp(max=bound)
    state = proximal.start_fista(problem, proximal.start_at_zero(problem))
    codes, value = torch.empty_like(problem.correlations), torch.empty_like(problem.squared_norms)
    n_iter = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    certified = torch.ones(len(x), dtype=torch.bool, device=x.device)
    left, last = torch.arange(len(x), device=x.device), max_iter or _MAX_ITER
    for iteration in range(last + 1):
        if iteration == last or iteration % _CHECK_EVERY == 0:
            z, product = state[:2]
            gap = problem.certificate(z, product)
            good = ~(gap > problem.rounding(z, product).clamp(min=tol))
            done = torch.ones_like(good) if iteration == last else good
            rows, keep = left[done], ~done
            codes[rows], value[rows], n_iter[rows] = z[done], gap[done], iteration
            certified[rows] = good[done] | (max_iter is not None)
            left, problem, curvature = left[keep], problem.select(keep), curvature[keep]
            state = tuple(part[keep] for part in state)
            if not len(left):
                break
        before = state[0]
        # A step length for each row: the solver only multiplies by it.
        state = proximal.monotone_step(replace(problem, lipschitz=curvature), state)  # type: ignore[arg-type]
        stuck = (state[0] == before).all(dim=1, keepdim=True)
        curvature = torch.where(stuck, 2.0 * curvature, curvature).clamp(max=bound)
    return SparseSolution(codes, value, certificate_kind(network.penalty), n_iter, certified)


def _solve_each(
    network: DeconvolutionalEnergy,
    x: Tensor,
    switches: Switches,
    layer: int,
    transfers: list[Tensor],
    tol: float,
) -> SparseSolution:
    """The codes from the matrix R_l that switches make, once for images that share them."""
    unit = torch.eye(math.prod(network.map_shape(layer)), dtype=x.dtype)

    def atoms_of(row: int) -> Tensor:
        own = tuple(p[row].expand(len(unit), *p.shape[1:]) for p in switches)
        return network.synthesise(unit, own, transfers)

    kinds = torch.cat([p.flatten(1) for p in switches], dim=1)
    alpha = network.alphas[layer - 1]
    return solve_codes_by_kind(x, kinds, atoms_of, network.penalty, alpha, tol=tol)


def _curvature_of_rows(product: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Estimates of the largest eigenvalue of each row's own matrix, (n_rows, 1)."""
    tiny = torch.finfo(start.dtype).tiny
    v, length = start, torch.ones_like(start[:, :1])
    for _ in range(_POWER_STEPS):
        # Products of an image without any correlation stay zero: so does its code.
        v = product(v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=tiny))
        length = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return _MARGIN * length.clamp(min=tiny)


def surrogate_maps(
    network: DeconvolutionalEnergy, x: Tensor, z: Tensor, switches: Switches, layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps that a layer should describe if its kernels are to lower the error of the images.

    With w = D_l * z and c the curvature of the layers below, |x - R w'|^2 is at most a constant
    plus c |w' - y|^2 with y = w + R'(x - R w) / c, and equal to it at w' = w: kernels that describe
    y better by the code z describe x better.

    Returns
    -------
    target, decoded, curvature : Tensor
        y, w and, of shape (n_rows, 1), c: an estimate for each image's own switches.
    """
    transfers = network.transfers(layer)
    decoded, below = network.synthesise(z, switches, transfers, down_to=layer), transfers[:-1]
    if layer == 1:
        return x, decoded, torch.ones_like(x[:, :1])
    error = network.back(x - network.down(decoded, switches, below), switches, below)
    curvature = _curvature_of_rows(
        lambda v: network.back(network.down(v, switches, below), switches, below),
        network.back(x, switches, below),
    ).clamp(max=network.curvature(layer - 1))
    return decoded + error / curvature, decoded, curvature


def strongest(z: Tensor, n_maps: int, unit: int) -> Tensor:
    """Codes with all entries zero but the one of largest magnitude in the map ``unit``."""
    maps = z.view(len(z), n_maps, -1)
    place = maps[:, unit].abs().argmax(dim=1, keepdim=True)
    only = torch.zeros_like(maps)
    only[:, unit].scatter_(1, place, maps[:, unit].gather(1, place))
    return only.flatten(1)
