r"""F(x, y) = min_z |g - Dec(u, z)|^2 / 2 + R(z) + w |z - Enc(u, g)|^2 / 2 over z in a cube.

The latent is a vector of real numbers. Without an encoder the minimum is found by proximal gradient
descent from the best of several starts: soft thresholds for l1, hard ones for l0. With an encoder
the code is its answer, in one pass, and it learns from the minimum that descent finds from there.

With noise of standard deviation sigma added to z in training, Dec sees z + sigma e: what it can
tell apart, within the cube or a penalty, is limited. For linear Dec and l2 with weight lambda,

    E_e |g - W (z + sigma e)|^2 / 2 = |g - W z|^2 / 2 + sigma^2 |W|^2 / 2,

whose minimum shrinks each principal standard deviation of g by sigma sqrt(lambda), to zero if it is
smaller: directions that are not worth their information are left out.

K. Kavukcuoglu, M. Ranzato and Y. LeCun, "Fast inference in sparse coding algorithms with
applications to object recognition", 2008; K. Sohn, H. Lee and X. Yan, "Learning structured output
representation using deep conditional generative models", NIPS 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklebm.energies.latent_targets import LatentTargetEnergy, regularization

#: How many of the latents are tried before a descent.
_TRIED = 64
_KEPT, _STEPS = 3, 300
_QUICK_TRIED, _QUICK_STEPS = 16, 20


class ContinuousLatentEnergy(LatentTargetEnergy):
    """An energy of rows, targets and real latents.

    Parameters
    ----------
    network, latents, *linear, **settings
        As in ``LatentTargetEnergy``; ``latents`` are at least 64 points that fill the cube evenly,
        where descents start and which stand for p(z).
    encoder : Module or None
        Enc, from [u, g] of shape (n, d + m), or g alone without rows, to (n, k).
    encoder_weight : float
        w.
    cube : tuple of two floats
        Least and largest value of each component of z.
    """

    def __init__(
        self,
        network: nn.Module,
        latents: Tensor,
        *linear: Tensor,
        encoder: nn.Module | None,
        encoder_weight: float,
        cube: tuple[float, float],
        regularizer: str,
        weight: float,
        beta: float,
        has_rows: bool,
    ) -> None:
        super().__init__(
            network,
            latents,
            *linear,
            regularizer=regularizer,
            weight=weight,
            beta=beta,
            has_branches=False,
            has_rows=has_rows,
        )
        self.encoder, self.encoder_weight, self.cube = encoder, encoder_weight, cube

    def encode(self, u: Tensor, g: Tensor) -> Tensor | None:
        """Enc, (n, k), moved into the cube; gradients pass as if it had not been moved."""
        if self.encoder is None:
            return None
        code: Tensor = self.encoder(torch.cat([u, g], dim=1) if self.has_rows else g)
        return code + (code.clamp(*self.cube) - code).detach()

    def explain(self, u: Tensor, g: Tensor) -> Tensor:
        """The latent of lowest energy, (n, k): by descent, or what the encoder says."""
        code = self.encode(u, g)
        if code is None:
            code = self._descended(u, g, None, _TRIED, _KEPT, _STEPS)
        return code

    def fitted_latent(self, u: Tensor, g: Tensor) -> Tensor:
        """What Dec and Enc are to learn from: the minimum by a short descent, (n, k)."""
        with torch.no_grad():
            return self._descended(u, g, self.encode(u, g), _QUICK_TRIED, 1, _QUICK_STEPS)

    def target_free_energy(self, u: Tensor, g: Tensor) -> Tensor:
        """F, (n,), at ``explain``."""
        with torch.no_grad():
            z = self.explain(u, g)
        return self.energy(u, g, z)

    def energy(self, u: Tensor, g: Tensor, z: Tensor) -> Tensor:
        """E at one latent (n, k) of each row, (n,)."""
        energy = super().energy(u, g, z)
        code = self.encode(u, g)
        if code is None:
            return energy
        return energy + 0.5 * self.encoder_weight * (z - code).square().sum(dim=1)

    def noisy_energy(self, u: Tensor, g: Tensor, noise: Tensor) -> Tensor:
        """C at z plus noise (n, k), and R at z, which an encoder learns from: (n,)."""
        z = self.encode(u, g)
        if z is None:
            z = self.fitted_latent(u, g)
        blurred = self.decode(u, (z + noise)[:, None])[:, 0]
        distance = (g - blurred).square().sum(dim=1)
        return 0.5 * distance + regularization(z, self.regularizer, self.weight)

    def integrated(self, x: Tensor) -> Tensor:
        """The limit of a minimum: no y is better than another, (n,)."""
        return x.new_zeros(len(x))

    # ------------------------------------------------------------------ descent

    def _descended(
        self, u: Tensor, g: Tensor, code: Tensor | None, tried: int, kept: int, n_steps: int
    ) -> Tensor:
        """The best end of descents from the code, or from the ``kept`` best of ``tried`` points."""
        if code is None:
            points = self.latents[:tried].to(u).expand(len(u), -1, -1)
            energies = 0.5 * (g[:, None] - self.decode(u, points)).square().sum(dim=2)
            energies = energies + regularization(points, self.regularizer, self.weight)
            best = energies.topk(kept, dim=1, largest=False).indices
            start = points[torch.arange(len(u), device=u.device)[:, None], best].flatten(0, 1)
        else:
            kept, start = 1, code
        u, g = (part.repeat_interleave(kept, dim=0) for part in (u, g))
        z, value = self._descend(u, g, start, code, n_steps)
        best = value.view(-1, kept).argmin(dim=1)
        rows = torch.arange(len(best), device=u.device)
        return z.view(len(best), kept, -1)[rows, best]

    def _descend(
        self, u: Tensor, g: Tensor, z: Tensor, code: Tensor | None, n_steps: int
    ) -> tuple[Tensor, Tensor]:
        """Proximal gradient steps, each row with a step size of its own, and the energies there."""
        value, slope = self._value_and_slope(u, g, z, code)
        step = z.new_ones((len(z), 1))
        done = torch.zeros_like(step, dtype=torch.bool)
        rounding = 4.0 * torch.finfo(z.dtype).eps * (1.0 + max(map(abs, self.cube)))
        for _ in range(n_steps):
            moved = torch.where(done, z, self._proximal(z - step * slope, step))
            new, new_slope = self._value_and_slope(u, g, moved, code)
            better = (new < value)[:, None]
            # A row that has settled stays, however long the rows beside it take.
            done |= ((moved - z).abs() <= rounding).all(dim=1, keepdim=True)
            z, slope = torch.where(better, moved, z), torch.where(better, new_slope, slope)
            value = torch.minimum(new, value)
            step = torch.where(better, 1.5 * step, 0.3 * step)
            if bool(done.all()):
                break
        return z, value

    def _value_and_slope(
        self, u: Tensor, g: Tensor, z: Tensor, code: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """E of each row, and the gradient of its smooth part."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            smooth = 0.5 * (g - self.decode(u, z[:, None])[:, 0]).square().sum(dim=1)
            if code is not None:
                smooth = smooth + 0.5 * self.encoder_weight * (z - code).square().sum(dim=1)
            rest = regularization(z, self.regularizer, self.weight)
            if self.regularizer not in ("l1", "l0"):
                smooth, rest = smooth + rest, torch.zeros_like(rest)
            (slope,) = torch.autograd.grad(smooth.sum(), z)
        return (smooth + rest).detach(), slope

    def _proximal(self, z: Tensor, step: Tensor) -> Tensor:
        """The best of R plus the squared distance from z over twice the step, in the cube."""
        limit = step * self.weight
        if self.regularizer == "l1":
            z = z.sign() * (z.abs() - limit).clamp(min=0.0)
        elif self.regularizer == "l0":
            z = torch.where(z.square() > 2.0 * limit, z, 0.0)
        return z.clamp(*self.cube)
