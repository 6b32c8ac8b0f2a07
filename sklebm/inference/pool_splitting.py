r"""min_z 1/2 |x - z D|^2 + alpha sum_g |z_g|_2 for pools that overlap: primal-dual steps.

Such a sum has no proximal operator. Every pool gets a copy of its members and a dual vector u_g
with |u_g| <= alpha, so that at the optimum c - z H = K' u, where K makes the copies.

L. Condat, "A primal-dual splitting method for convex optimization involving Lipschitzian,
proximable and linear composite terms", JOTA 158, 2013. The balance of primal and dual steps follows
D. Applegate et al., "Practical large-scale linear programming using primal-dual hybrid gradient",
NeurIPS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sklebm.inference.proximal import State
from sklebm.inference.sparse_problem import SparseProblem

_FIRST_BALANCE = 10
_BALANCES = 1e-2, 1e2


class PoolSplitting:
    """The steps, and the codes and certificates that they amount to.

    Parameters
    ----------
    problem : SparseProblem
        Rows to encode.
    members : Tensor of shape (n_pools, pool_size)
        Components in each pool, of which every component is in ``pool_size``.
    """

    def __init__(self, problem: SparseProblem, members: Tensor) -> None:
        self.members = members.to(problem.gram.device)
        self.n_pools = self.members.shape[1]
        self.lipschitz = problem.lipschitz

    def _gather(self, u: Tensor) -> Tensor:
        """K' u: the sum of the copies of each component."""
        out = u.new_zeros(len(u), len(self.members))
        return out.index_add_(1, self.members.flatten(), u.flatten(1))

    def _dual_step(self, u: Tensor, z: Tensor, balance: Tensor) -> Tensor:
        """The dual vectors after a step towards the copies of z, before they are shortened."""
        # |K|^2 is the number of pools of a component, and 1 / tau - sigma |K|^2 >= L / 2.
        sigma = (0.5 * self.lipschitz / self.n_pools) * balance
        return u + (sigma * z)[:, self.members]

    def start(self, problem: SparseProblem, state: State) -> State:
        """Codes, products, zero dual vectors, what balances the steps, and since when."""
        z, product = state
        u = z.new_zeros(len(z), *self.members.shape)
        balance = torch.ones_like(z[:, :1])
        return z, product, u, balance, torch.zeros_like(balance), z, u

    def step(self, problem: SparseProblem, state: State) -> State:
        """One primal and one dual step.

        How long the two are beside each other is every row's own: after 10, 20, 40, ... steps they
        are set anew by the distances that primal and dual vectors have gone since the last time.
        """
        z, product, u, balance, count, z_then, u_then = state
        slope = problem.correlations - product - self._gather(u)
        new = z + 2.0 / (self.lipschitz * (1.0 + balance)) * slope
        u = self._dual_step(u, 2.0 * new - z, balance)
        lengths = torch.linalg.vector_norm(u, dim=2, keepdim=True)
        u = u * (problem.alpha / lengths.clamp(min=problem.alpha))
        count = count + 1.0
        # Rows share the count, for they begin together.
        turn, rest = divmod(int(count[0, 0]), _FIRST_BALANCE)
        if turn and not rest and not turn & (turn - 1):
            balance, z_then, u_then = self._rebalance(new - z_then, u - u_then, balance), new, u
        return new, new @ problem.gram, u, balance, count, z_then, u_then

    def _rebalance(self, z: Tensor, u: Tensor, balance: Tensor) -> Tensor:
        """The geometric mean of the old balance and that of the distances z and u."""
        gone = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        dual = torch.linalg.vector_norm(u.flatten(1), dim=1, keepdim=True)
        tiny = torch.finfo(z.dtype).tiny
        # sigma / tau = (dual / gone)^2, with sigma and tau as functions of the balance.
        ratio = (dual / gone.clamp(min=tiny)).square() * (4.0 * self.n_pools / self.lipschitz**2)
        asked = (0.5 * ((1.0 + 4.0 * ratio).sqrt() - 1.0)).clamp(*_BALANCES)
        return torch.where((gone > 0) & (dual > 0), (balance * asked).sqrt(), balance)

    def settle(self, problem: SparseProblem, state: State) -> tuple[Tensor, Tensor]:
        """The codes with exact zeros where a pool is off, and their relative duality gaps.

        A pool is off where its dual vector is shorter than alpha even after a step towards z.
        """
        z, _, u, balance = state[:4]
        lengths = torch.linalg.vector_norm(self._dual_step(u, z, balance), dim=2)
        off = (lengths < problem.alpha)[:, :, None].expand(u.shape).to(z.dtype)
        codes = torch.where(self._gather(off) > 0, 0.0, z)
        product = codes @ problem.gram
        # What is left of the gradient is shared by the pools of a component: their largest length
        # is then an upper bound of the dual norm.
        slope = (problem.correlations - product - self._gather(u)) / self.n_pools
        peak = torch.linalg.vector_norm(u + slope[:, self.members], dim=2).amax(dim=1)
        return codes, problem.relative_gap(codes, product, peak)
