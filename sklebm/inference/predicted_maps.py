r"""Maps near a prediction: argmin_z 1/2 |x - sum_k d_k * z_k|^2 + alpha R(z) + w/2 |z - p|^2."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from sklebm.energies.convolution import ConvolutionGrid
from sklebm.energies.penalty import Penalty
from sklebm.inference import proximal
from sklebm.inference.convolutional import ConvolutionalProblem, make_convolutional_problem
from sklebm.inference.sparse import SparseSolution, solve_near
from sklebm.inference.sparse_problem import certificate_kind

# Up to this many numbers in a code the dictionary of all shifts is formed, for a compiled solver.
_DENSE = 512


@dataclass(frozen=True)
class TiedProblem(ConvolutionalProblem):
    """Images to encode near a prediction: the Gram matrix has ``weight`` on its diagonal.

    It is the lasso of the images with further pixels, one an entry of the code, so that the same
    duality gap certifies it.

    Parameters
    ----------
    weight : float
        w.
    """

    weight: float

    def product(self, z: Tensor) -> Tensor:
        """z times the Gram matrix."""
        return super().product(z) + self.weight * z


def solve_maps_near(
    x: Tensor,
    atoms: Tensor,
    prediction: Tensor,
    weight: float,
    penalty: Penalty,
    alpha: float,
    grid: ConvolutionGrid,
    *,
    tol: float = 1e-4,
    max_iter: int = 10_000,
) -> SparseSolution:
    """Find the convolutional code of minimum energy that is pulled towards a prediction.

    Accelerated proximal gradient steps with adaptive restart, from the prediction. The pull makes
    the energy strongly convex, so that few are needed. Small problems on the CPU are solved with
    the dictionary of all shifts.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_pixels)
        Images as rows.
    atoms : Tensor of shape (n_kernels, kernel_length)
        Kernels.
    prediction : Tensor of shape (n_rows, n_kernels * map_length)
        p.
    weight : float
        w, positive.
    penalty, alpha, grid, tol, max_iter
        As in ``solve_maps``.

    Returns
    -------
    solution : SparseSolution
        Codes, certificates and iterations.
    """
    n_codes = len(atoms) * grid.map_length
    if x.device.type == "cpu" and n_codes <= _DENSE:
        return solve_near(x, grid.toeplitz(atoms), prediction, weight, penalty, alpha, tol=tol)
    plain = make_convolutional_problem(x, atoms, penalty, alpha, grid)
    values = {field.name: getattr(plain, field.name) for field in fields(plain)}
    values["correlations"] = plain.correlations + weight * prediction
    values["squared_norms"] = plain.squared_norms + weight * prediction.square().sum(dim=1)
    values["lipschitz"] = plain.lipschitz + weight
    problem = TiedProblem(**values, weight=weight)
    state = proximal.start_fista(problem, proximal.start_at(problem, prediction))
    codes, certificate, n_iter, converged = proximal.run(
        problem, proximal.fista_step, state, tol=tol, max_iter=max_iter
    )
    return SparseSolution(codes, certificate, certificate_kind(penalty), n_iter, converged)
