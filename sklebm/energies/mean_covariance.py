r"""Hidden units for the mean and for the covariance of real-valued rows.

    E(x, y, z) = |x|^2 / 2 s^2 - a'x - 1/2 sum_fj (x'r_f)^2 P_fj y_j - c'y - x'W z - b'z,  P <= 0.

Given the hidden units, x is a Gaussian,

    p(x | y, z) = N(S (a + W z), S),      S^-1 = I / s^2 + R diag(-P y) R',

and given x all hidden units are independent. Summed over y and z,

    F(x) = |x|^2 / 2 s^2 - a'x - sum_j log(1 + exp(c_j + 1/2 sum_f P_fj (x'r_f)^2))
           - sum_k log(1 + exp(b_k + w_k'x)).

M. Ranzato and G. E. Hinton, "Modeling pixel means and covariances using factorized third-order
Boltzmann machines", CVPR 2010.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklebm.energies.binary_states import binary_states
from sklebm.energies.gated import MAX_SUMMED, check_summed
from sklebm.energies.reference import ReferenceGaussian
from sklebm.energies.units import Bernoulli

# Numbers that the matrices of some covariance states hold at a time.
_CHUNK = 2**22


class MeanCovarianceEnergy(nn.Module):
    """Real-valued visible units, and hidden units of two kinds: [z | y], mean units first.

    Parameters
    ----------
    visible_bias : Tensor of shape (n_features,)
        The linear term a.
    log_variance : Tensor of shape (1,)
        Logarithm of s^2, the variance where no covariance unit is on.
    weights : Tensor of shape (n_mean, n_features)
        The columns of W.
    mean_units : Bernoulli
        The units z, with biases b.
    filters : Tensor of shape (n_factors, n_features)
        The columns r_f of R.
    pooling : Tensor of shape (n_factors, n_covariance)
        P, nowhere positive.
    covariance_units : Bernoulli
        The units y, with biases c.
    learn_variance : bool, default=False
        Whether ``log_variance`` has a gradient.
    """

    domain = "real"

    def __init__(
        self,
        visible_bias: Tensor,
        log_variance: Tensor,
        weights: Tensor,
        mean_units: Bernoulli,
        filters: Tensor,
        pooling: Tensor,
        covariance_units: Bernoulli,
        learn_variance: bool = False,
    ) -> None:
        super().__init__()
        self.visible_bias = nn.Parameter(visible_bias)
        self.log_variance = nn.Parameter(log_variance, requires_grad=learn_variance)
        # Without mean units there is nothing to learn about them, and no gradient.
        self.weights = nn.Parameter(weights, requires_grad=len(weights) > 0)
        self.mean_units = mean_units
        self.mean_units.bias.requires_grad_(len(weights) > 0)
        self.filters = nn.Parameter(filters)
        self.pooling = nn.Parameter(pooling)
        self.covariance_units = covariance_units
        #: Rows are (X - offset) / scale; no part of the energy, which sees them so.
        self.offset: Tensor | None = None
        self.scale: Tensor | None = None

    @property
    def reference(self) -> ReferenceGaussian:
        """Independent standard normal features."""
        d, like = len(self.visible_bias), self.visible_bias.detach()
        return ReferenceGaussian(torch.zeros_like(like), torch.eye(d).to(like))

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """z and y of hidden states [z | y]."""
        return h[:, : len(self.weights)], h[:, len(self.weights) :]

    # ------------------------------------------------------------------ energies

    def mean_field(self, x: Tensor) -> Tensor:
        """Input b_k + w_k'x of the mean units, (n_rows, n_mean)."""
        return torch.addmm(self.mean_units.bias, x, self.weights.T)

    def covariance_field(self, x: Tensor) -> Tensor:
        """Input c_j + 1/2 sum_f P_fj (x'r_f)^2 of the covariance units, (n_rows, n_covariance)."""
        squares = (x @ self.filters.T).square()
        return torch.addmm(self.covariance_units.bias, squares, self.pooling, alpha=0.5)

    def _visible_energy(self, x: Tensor) -> Tensor:
        quadratic = 0.5 * torch.exp(-self.log_variance) * x.square().sum(dim=1)
        return quadratic - x @ self.visible_bias

    def free_energy(self, x: Tensor, beta: float = 1.0) -> Tensor:
        """F_beta(x), (n_rows,). O(n (d (n_mean + f) + f n_covariance))."""
        of_means = self.mean_units.cumulant(beta * self.mean_field(x)).sum(dim=1)
        of_covariances = self.covariance_units.cumulant(beta * self.covariance_field(x)).sum(dim=1)
        return self._visible_energy(x) - (of_means + of_covariances) / beta

    @property
    def has_closed_derivatives(self) -> bool:
        """True: ``gradient_and_laplacian`` needs no autograd by x."""
        return True

    def gradient_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """dF (n_rows, d) and its divergence (n_rows,). O(n n_covariance f d)."""
        precision, seen = torch.exp(-self.log_variance), x @ self.filters.T
        z, y = self.split(self.hidden_mean(x))
        # The gradient of each covariance field, (n_rows, n_covariance, d).
        slopes = (seen.unsqueeze(1) * self.pooling.T) @ self.filters
        pulled = (y.unsqueeze(1) @ slopes).squeeze(1)
        gradient = precision * x - self.visible_bias - z @ self.weights - pulled
        lengths = self.filters.square().sum(dim=1)
        curvature = (z * (1.0 - z)) @ self.weights.square().sum(dim=1)
        curvature = curvature + (y * (1.0 - y) * slopes.square().sum(dim=2)).sum(dim=1)
        curvature = curvature + y @ (self.pooling.T @ lengths)
        return gradient, precision * x.shape[1] - curvature

    def energy(self, x: Tensor, h: Tensor) -> Tensor:
        """E(x, y, z), (n_rows,), for hidden states [z | y]."""
        z, y = self.split(h)
        coupled = (self.mean_field(x) * z).sum(dim=1) + (self.covariance_field(x) * y).sum(dim=1)
        return self._visible_energy(x) - coupled

    # ------------------------------------------------------------------ conditionals

    def hidden_mean(self, x: Tensor) -> Tensor:
        """[p(z_k = 1 | x) | p(y_j = 1 | x)], (n_rows, n_mean + n_covariance)."""
        of_means = self.mean_units.mean(self.mean_field(x))
        of_covariances = self.covariance_units.mean(self.covariance_field(x))
        return torch.cat([of_means, of_covariances], dim=1)

    def precision_factor(self, y: Tensor) -> Tensor:
        """Lower triangular L with L L' = S^-1 for each y, (n_rows, d, d). O(n d^2 (f + d)).

        NaN for parameters that are not finite, as any other value computed from them. Raise
        FloatingPointError if S^-1 is singular to working precision.
        """
        gains = -(y @ self.pooling.T)
        spread = (gains.unsqueeze(2) * self.filters).transpose(1, 2) @ self.filters
        floor = torch.exp(-self.log_variance) * torch.eye(spread.shape[1]).to(spread)
        precision = spread + floor
        factor, failures = torch.linalg.cholesky_ex(precision)
        failed: Tensor = failures > 0
        if bool(failed.any()):
            if bool(torch.isfinite(precision).all()):
                raise FloatingPointError(
                    f"{int(failed.sum())} of {len(y)} precisions of x given the hidden units are "
                    "not positive definite to working precision: P constrains some directions far "
                    "more than s^2 does. Lower the learning rate, or scale or whiten X."
                )
            factor = torch.where(failed[:, None, None], torch.nan, factor)
        return torch.as_tensor(factor)

    def conditional_mean(self, factor: Tensor, z: Tensor) -> Tensor:
        """S (a + W z), (n_rows, d), from the factor of each S^-1."""
        pushed = torch.addmm(self.visible_bias, z, self.weights)
        return torch.cholesky_solve(pushed.unsqueeze(2), factor).squeeze(2)

    def draw_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """One exact draw of p(x | y, z) for each row. O(n d^3)."""
        z, y = self.split(h)
        factor = self.precision_factor(y)
        mean = self.conditional_mean(factor, z)
        white = torch.empty_like(mean).normal_(generator=generator).unsqueeze(2)
        spread = torch.linalg.solve_triangular(factor.transpose(1, 2), white, upper=True)
        draws: Tensor = mean + spread.squeeze(2)
        return draws

    def draw_hidden(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of p(y, z | x) for each row."""
        return self.mean_units.draw(self.hidden_mean(x), generator)

    # ------------------------------------------------------------------ log Z

    @property
    def summed_units(self) -> int:
        """Number of units that an exact log Z sums over: all hidden ones."""
        n_hidden = self._n_hidden()
        if n_hidden > MAX_SUMMED:
            raise AttributeError("log Z cannot be summed")
        return n_hidden

    def _n_hidden(self) -> int:
        return len(self.weights) + self.pooling.shape[1]

    def exact_log_partition(self) -> Tensor:
        """log Z, by a Gaussian integral for each hidden state; a differentiable scalar.

        O(2^n_covariance d^2 (d + f + 2^n_mean)).

        Raises
        ------
        ValueError
            If there are more than ``MAX_SUMMED`` hidden units.
        """
        check_summed(self._n_hidden())
        d, n_mean = len(self.visible_bias), len(self.weights)
        pushed, of_means = [], []
        for z in binary_states(n_mean, self.visible_bias):
            pushed.append(torch.addmm(self.visible_bias, z, self.weights))
            of_means.append(-self.mean_units.energy(z))
        right, gains = torch.cat(pushed).T, torch.cat(of_means)
        parts = []
        step = max(1, _CHUNK // (d * (d + right.shape[1])))
        for y in binary_states(self.pooling.shape[1], self.visible_bias, step):
            factor = self.precision_factor(y)
            white = torch.linalg.solve_triangular(factor, right.expand(len(y), -1, -1), upper=False)
            log_determinant = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
            of_y = -self.covariance_units.energy(y) - log_determinant
            parts.append((0.5 * white.square().sum(dim=1) + gains + of_y.unsqueeze(1)).flatten())
        return torch.logsumexp(torch.cat(parts), dim=0) + 0.5 * d * math.log(2.0 * math.pi)
