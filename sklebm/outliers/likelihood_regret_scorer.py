r"""s(x) = L(x; q(z | x)) - max_q L(x; q): what a VAE's encoder loses to the best posterior."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

import sklebm
from sklebm._shell.private import Interval, InvalidParameterError
from sklebm._shell.rows import chunk_size
from sklebm._shell.state import Scalar, Spec
from sklebm.base import map_energy
from sklebm.composite import MemberFits
from sklebm.outliers._base import EnergyScorer
from sklebm.outliers._members import require_scores


class LikelihoodRegretScorer(EnergyScorer):
    r"""Score rows by how well the encoder of a VAE knows them.

    .. math:: s(x) = L\bigl(x; q_{\text{encoder}}(z \mid x)\bigr) - \max_q L(x; q),

    .. math:: L(x; q) = \mathbb{E}_q \log p(x \mid z) - \mathrm{KL}(q \,\|\, p(z)).

    The encoder was trained to give the best posterior for the training rows. For similar rows,
    little is gained by searching for a better one; for other rows much is, whatever their density.
    The score is minus this regret [1]_.

    Parameters
    ----------
    estimator : "auto" or VAE, default="auto"
        A :class:`~sklebm.VAE` with Gaussian latents (``posterior`` "diagonal" or "full"). "auto" is
        one with default settings.
    n_steps : int, default=50
        Adam steps on the parameters of each row's posterior.
    learning_rate : float, default=0.1
        Step size, in units of the encoder's outputs: posterior means and log scales.

    Attributes
    ----------
    n_steps_, learning_rate_ : int, float
        The parameters at the time of ``fit``.
    estimator_ : VAE
        The fitted model.
    named_estimators_ : dict
        The same under the name "estimator".
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    LikelihoodRatioScorer : For densities without an encoder.
    EnergyOutlierDetector : Adds a threshold, or p-values, to this score.

    Notes
    -----
    Expectations over q are sums over 2 k points for k latents, by the cubature rule that is exact
    for cubic polynomials [2]_ and hence for affine decoders; there are no random draws. The best
    bound found is used, so the score is at most 0, and a poor step size can only make the regret
    too small.

    Cost: O(n_steps k P) per row for a decoder with P weights.

    References
    ----------
    .. [1] Z. Xiao, Q. Yan and Y. Amit, "Likelihood regret: an out-of-distribution detection score
       for variational auto-encoder", NeurIPS 2020.
    .. [2] A. H. Stroud, "Approximate calculation of multiple integrals", 1971.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklebm import LikelihoodRegretScorer, VAE
    >>> images = load_digits().data / 16
    >>> model = VAE(max_epochs=20, random_state=0)
    >>> scorer = LikelihoodRegretScorer(model, n_steps=30).fit(images[:1000])
    >>> new = images[1000:1100]
    >>> bool(scorer.score_samples(new).mean() > scorer.score_samples(1 - new).mean())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EnergyScorer._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
    }

    n_steps_: int
    learning_rate_: float

    def __init__(
        self, estimator: Any = "auto", *, n_steps: int = 50, learning_rate: float = 0.1
    ) -> None:
        self.estimator = estimator
        self.n_steps = n_steps
        self.learning_rate = learning_rate

    def _fit(self, X: Any, members: MemberFits, **data: Any) -> dict[str, Any]:
        if isinstance(self.estimator, str):
            member = sklebm.VAE(random_state=0)
        else:
            require_scores("estimator", self.estimator, type(self).__name__)
            member = clone(self.estimator)
        if not isinstance(member, sklebm.VAE) or member.posterior == "bernoulli":
            raise InvalidParameterError(
                "LikelihoodRegretScorer searches the posteriors of a VAE with Gaussian latents "
                f'(posterior "diagonal" or "full"), but estimator is {member!r}. For other '
                "densities there are LikelihoodRatioScorer and TypicalityScorer."
            )
        return {
            "named_estimators_": {"estimator": members.fit("estimator", member, X, data["y"])},
            "n_steps_": int(self.n_steps),
            "learning_rate_": float(self.learning_rate),
        }

    def score_samples(self, X: Any) -> Any:
        """Return minus the regret of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            At most 0, in nats; higher is more typical.
        """
        check_is_fitted(self)
        self._check_names(X)
        return map_energy(self.estimator_, X, self._minus_regret, "score_samples")

    def _minus_regret(self, energy: Any, x: torch.Tensor) -> Any:
        """The bound of the encoder's posterior minus that of the best one found."""
        energy.requires_grad_(False)
        points = cubature_points(energy.n_components).to(x)
        at_a_time = chunk_size(len(points), len(x) * _widths(energy), x.device)
        blocks = torch.split(points, at_a_time)
        outputs = energy.posterior_parameters(x)
        first = best = self._bound(energy, x, outputs, blocks)
        with torch.enable_grad():
            searched = outputs.detach().clone().requires_grad_(True)
            optimizer = torch.optim.Adam([searched], lr=self.learning_rate_)
            for _ in range(self.n_steps_):
                optimizer.zero_grad()
                best = torch.fmax(best, self._bound(energy, x, searched, blocks))
                optimizer.step()
        with torch.no_grad():
            best = torch.fmax(best, self._bound(energy, x, searched, blocks))
        return first - best

    def _bound(self, energy: Any, x: torch.Tensor, outputs: torch.Tensor, blocks: Any) -> Any:
        """The evidence lower bound of each row; its gradient is added to that of ``outputs``."""
        total = torch.zeros_like(x[:, 0])
        n_points = sum(len(block) for block in blocks)
        for block in blocks:
            q = energy.family.unpack(outputs)
            expected = energy.log_likelihood(x, q.draw(block[:, None])).sum(dim=0) / n_points
            part = expected - q.divergence().sum(dim=1) * (len(block) / n_points)
            if outputs.requires_grad and torch.is_grad_enabled():
                (-part.sum()).backward()
            total = total + part.detach()
        return total

    def _state_spec(self) -> Spec:
        return {"n_steps_": Scalar(int, 1), "learning_rate_": Scalar(float, 0.0)}


def _widths(energy: torch.nn.Module) -> int:
    """Temporary numbers per row in the networks."""
    return sum(len(weight) for weight in energy.parameters() if weight.ndim > 1)


def cubature_points(n_components: int) -> torch.Tensor:
    """Points whose mean replaces that over N(0, I): exact for polynomials of degree three."""
    axes = math.sqrt(n_components) * torch.eye(n_components, dtype=torch.float64)
    return torch.cat([axes, -axes])
