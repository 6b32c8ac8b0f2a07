r"""E(s) = -1/2 s' W s, s in {-1, +1}: patterns are stored in W, and recall descends to one."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklebm._shell.arrays import to_numpy
from sklebm._shell.gaps import fill_gaps
from sklebm._shell.private import Interval, StrOptions
from sklebm._shell.progress import Progress
from sklebm._shell.random import RandomState, draw_seed, make_generator
from sklebm._shell.rows import Rows
from sklebm._shell.state import Array, Choice, Flag, Scalar, Spec
from sklebm._shell.tables import is_dask, map_blocks
from sklebm._shell.warning import warn
from sklebm.base import EnergyEstimator
from sklebm.boltzmann import _memory
from sklebm.energies.associative import AssociativeMemory, DenseMemory, PairwiseMemory
from sklebm.inference import associative_recall
from sklebm.inference.storage_rules import RULES


class HopfieldNetwork(EnergyEstimator):
    r"""Associative memory: stores rows, and completes or corrects others to the nearest of them.

    .. math:: E(s) = -\tfrac12 s^\top W s, \qquad s_i \leftarrow
              \operatorname{sign} \Bigl(\sum_j W_{ij} s_j\Bigr), \qquad s \in \{-1, +1\}^d,

    or, for ``rule="dense"``, with the stored patterns :math:`p_m`,

    .. math:: E(s) = - d \sum_m \Bigl(\frac{p_m^\top s}{d}\Bigr)^n
              \quad \text{or} \quad - \frac1\beta \log \sum_m e^{\beta p_m^\top s}.

    The energy of continuous states s is the second of these, minus its value where all overlaps are
    zero, plus :math:`|s|^2 / 2`; each step of their recall is one of softmax attention,
    :math:`s \leftarrow \sum_m p_m \operatorname{softmax}_m (\beta p_m^\top s)`.

    Parameters
    ----------
    rule : {"hebb", "storkey", "pseudo_inverse", "dense"}, default="hebb"
        How rows are stored. "hebb" sums outer products and holds about 0.138 d random patterns;
        "storkey" corrects each product for the rows stored before it and holds more;
        "pseudo_inverse" projects onto the span of the rows, which makes each of them a fixed point
        as long as there are fewer than d; "dense" keeps the rows themselves, and holds of the order
        of d^(n-1) of them with "polynomial", or exponentially many with "exponential".
    interaction : {"polynomial", "exponential"}, default="polynomial"
        The function of the overlaps of state and patterns, for "dense".
    power : int, default=3
        Exponent n of the polynomial, at least 2; 2 gives Hebb's rule, except for its diagonal.
    beta : float, default=1.0
        Inverse temperature of the exponential.
    states : {"auto", "bits", "signs", "continuous"}, default="auto"
        Values of the two states in X. "bits": 0 and 1; "signs": -1 and +1; "auto": bits if all
        training values are in [0, 1]. Training rows are rounded to the nearer state. "continuous"
        takes real rows as they are, and needs ``interaction="exponential"``; the length of a row
        then matters.
    value_range : {"warn", "raise", "clip"}, default="warn"
        What to do with values outside those of the two states. "warn" warns of training rows only,
        which are rounded; ``energy`` uses such values as they are. Continuous states have no range.
    update : {"asynchronous", "synchronous"}, default="asynchronous"
        Whether units are updated one after the other in a random order, so that the energy never
        rises, or all at once, which may end in a cycle of two states. Continuous states are updated
        all at once, and their energy never rises.
    max_sweeps : int, default=100
        Maximum number of sweeps of a recall. One step of continuous states is attention to the
        stored patterns, which is no fixed point and gives no warning.
    random_state : int, RandomState instance or None, default=None
        Seed for the order of the units, which is drawn once in ``fit``.
    device : str or torch.device, default="auto"
        Where to compute. "auto": the device of X if X is a tensor, otherwise the CPU.

    Attributes
    ----------
    couplings_ : ndarray of shape (n_features_in_, n_features_in_) or None
        W with a zero diagonal; None for "dense".
    self_couplings_ : ndarray of shape (n_features_in_,) or None
        The diagonal that the rule gives and that recall leaves out. "pseudo_inverse" stores more
        rows by it, and ``from_parameters`` needs it for this rule.
    patterns_ : ndarray of shape (n_patterns_, n_features_in_) or None
        The stored states, for "dense".
    state_values_ : ndarray of shape (2,)
        Values of the two states in X.
    update_order_ : ndarray of shape (n_features_in_,)
        The order in which units are updated.
    n_patterns_ : int
        Number of stored rows.
    rule_ : str
        The rule by which the rows are stored, and by which ``partial_fit`` stores more.
    exponent_ : int
        n of the polynomial of a dense memory; 0 stands for the exponential.
    beta_ : float
        Inverse temperature of the exponential.
    is_continuous_ : bool
        Whether states are real vectors.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    See Also
    --------
    BoltzmannMachine : The same couplings between bits, learnt as a density.
    EnergyKMeans : Prototypes of real-valued rows.

    Notes
    -----
    Storing n rows costs O(n d^2), or nothing for "dense". A sweep of one row costs O(d^2), or O(d
    n_patterns_) for "dense"; synchronous sweeps cost the same, as matrix products. Everything is
    computed in double precision, and csr rows are made dense chunk by chunk. The network has no log
    Z: ``score_samples`` is -E, which compares rows of one fitted model.

    References
    ----------
    .. [1] J. J. Hopfield, "Neural networks and physical systems with emergent collective
       computational abilities", PNAS 79, 1982.
    .. [2] D. J. Amit, H. Gutfreund and H. Sompolinsky, "Storing infinite numbers of patterns in a
       spin-glass model of neural networks", Physical Review Letters 55, 1985.
    .. [3] D. Krotov and J. J. Hopfield, "Dense associative memory for pattern recognition",
       NIPS 2016.
    .. [4] H. Ramsauer et al., "Hopfield networks is all you need", ICLR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklebm import HopfieldNetwork
    >>> X = np.random.default_rng(0).choice([-1.0, 1.0], size=(5, 100))
    >>> memory = HopfieldNetwork(random_state=0).fit(X)
    >>> noisy = X.copy()
    >>> noisy[:, :20] *= -1  # a fifth of the entries are wrong
    >>> bool((memory.transform(noisy) == X).all())
    True
    >>> half = X.copy()
    >>> half[:, 50:] = np.nan
    >>> bool((memory.recall(half) == X).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "device": EnergyEstimator._parameter_constraints["device"],
        "rule": [StrOptions({*RULES, "dense"})],
        "interaction": [StrOptions({"polynomial", "exponential"})],
        "power": [Interval(Integral, 2, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "states": [StrOptions({"auto", "bits", "signs", "continuous"})],
        "value_range": [StrOptions({"warn", "raise", "clip"})],
        "update": [StrOptions({"asynchronous", "synchronous"})],
        "max_sweeps": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }
    _accepts_sparse = True
    _computes_in_double = True

    def __init__(
        self,
        rule: str = "hebb",
        *,
        interaction: str = "polynomial",
        power: int = 3,
        beta: float = 1.0,
        states: str = "auto",
        value_range: str = "warn",
        update: str = "asynchronous",
        max_sweeps: int = 100,
        random_state: RandomState = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.rule = rule
        self.interaction = interaction
        self.power = power
        self.beta = beta
        self.states = states
        self.value_range = value_range
        self.update = update
        self.max_sweeps = max_sweeps
        self.random_state = random_state
        self.device = device

    # ------------------------------------------------------------------ storing

    def _fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        self._check_states()
        n_features, generator = rows.shape[1], make_generator(draw_seed(self.random_state), "order")
        before = {
            "state_values_": _memory.state_values(rows, self.states),
            "update_order_": torch.randperm(n_features, generator=generator).numpy(),
            "n_patterns_": 0,
            "couplings_": None,
            "self_couplings_": None,
            "patterns_": None,
            "rule_": self.rule,
            **self._form(),
        }
        return self._stored(before, rows)

    def _form(self) -> dict[str, Any]:
        """The form of a dense energy, as fitted attributes."""
        return {
            "exponent_": int(self.power) if self.interaction == "polynomial" else 0,
            "beta_": float(self.beta),
            "is_continuous_": self.states == "continuous",
        }

    def _partial_fit(self, rows: Rows, progress: Progress, **data: Any) -> dict[str, Any]:
        if not self._is_fitted():
            return self._fit(rows, progress)
        now = {"rule_": self.rule, **(self._form() if self.rule == "dense" else {})}
        changed = [name for name, value in now.items() if getattr(self, name) != value]
        if changed:
            raise ValueError(
                f"rule={self.rule!r} cannot go on from what another rule has stored: "
                f"{changed[0]} is {getattr(self, changed[0])!r}, but the parameters ask for "
                f"{now[changed[0]]!r}. Set them back, or store all rows anew with fit."
            )
        _memory.need_diagonal(self.rule, self.self_couplings_, type(self).__name__)
        return self._stored({name: getattr(self, name) for name in self._state_spec()}, rows)

    def _stored(self, before: dict[str, Any], rows: Rows) -> dict[str, Any]:
        """The state after storing the rows too."""
        n_features, device = rows.shape[1], rows.device
        values = torch.from_numpy(before["state_values_"]).to(device)
        memory = AssociativeMemory(values)
        continuous = before["is_continuous_"]
        if not continuous:
            _memory.keep_between_states(self, rows, before["state_values_"], learning=True)
        _memory.check_energies_fit(memory, before, rows)
        total = torch.zeros(n_features, n_features, dtype=torch.float64, device=device)
        if before["couplings_"] is not None:
            total = torch.from_numpy(before["couplings_"]).to(total)
            removed = before["self_couplings_"]
            if removed is not None:
                total = total + torch.diag(torch.from_numpy(removed).to(total))
        patterns = [] if before["patterns_"] is None else [before["patterns_"]]
        for part in rows.chunks(floats_per_row=4 * n_features):
            x = rows[part].double()
            if not continuous:
                x = torch.where(memory.encode(x) >= 0.0, 1.0, -1.0).to(x)
            if self.rule == "dense":
                patterns.append(x.cpu().numpy())
            else:
                total = RULES[self.rule](total, x)
        state = {**before, "n_patterns_": before["n_patterns_"] + len(rows)}
        if self.rule == "dense":
            return {**state, "patterns_": np.concatenate(patterns)}
        diagonal = total.diagonal().clone()
        couplings = total.fill_diagonal_(0.0)
        if self.rule == "pseudo_inverse" and float(couplings.abs().max()) < 1e-9:
            warn(
                f"{type(self).__name__}: the {state['n_patterns_']} rows span all {n_features} "
                "features, so that every state is a fixed point and nothing is recalled: store "
                'fewer rows, or use rule="dense".'
            )
        return {
            **state,
            "couplings_": couplings.cpu().numpy(),
            "self_couplings_": diagonal.cpu().numpy(),
        }

    def _check_rows(self, rows: Rows, *, learning: bool) -> None:
        # What fit stores is checked there, where its states are known.
        if not (learning or self.is_continuous_):
            _memory.keep_between_states(self, rows, self.state_values_, learning=False)

    def _check_states(self) -> None:
        exponential = self.rule == "dense" and self.interaction == "exponential"
        if self.states == "continuous" and not exponential:
            raise ValueError(
                'states="continuous" needs rule="dense" and interaction="exponential"; '
                f"rule={self.rule!r} with interaction={self.interaction!r} stores two states."
            )

    # ------------------------------------------------------------------ fitted state

    def _state_spec(self) -> Spec:
        n = "n_features_in_"
        return {
            "couplings_": Array("f", (n, n), optional=True, of="couplings"),
            "self_couplings_": Array("f", (n,), optional=True),
            "patterns_": Array("f", ("n_patterns_", n), optional=True, of="patterns"),
            "state_values_": Array("f", (2,), of="state_values"),
            "update_order_": Array("i", (n,)),
            "n_patterns_": Scalar(int, 0),
            "rule_": Choice((*RULES, "dense")),
            "exponent_": Scalar(int, 0),
            "beta_": Scalar(float, 0.0),
            "is_continuous_": Flag(),
        }

    def _untrained_state(self, given: dict[str, Any]) -> dict[str, Any]:
        self._check_states()
        needed = "patterns" if self.rule == "dense" else "couplings"
        if given.get(f"{needed}_") is None:
            raise ValueError(f"{type(self).__name__}: rule={self.rule!r} needs {needed}.")
        _memory.need_diagonal(self.rule, given.get("self_couplings_"), type(self).__name__)
        order = np.arange(given["n_features_in_"])
        return {"update_order_": order, "n_patterns_": 0, "rule_": self.rule, **self._form()}

    def _check_state(self) -> None:
        super()._check_state()
        if not self._is_fitted():
            return
        name, held = type(self).__name__, self.couplings_
        if (held is None) == (self.patterns_ is None):
            raise ValueError(f"{name} needs either couplings_ or patterns_.")
        if held is not None and not np.allclose(held, held.T, rtol=1e-9, atol=1e-12):
            raise ValueError(f"{name}: couplings_ must be symmetric.")
        if held is not None and np.any(np.diagonal(held)):
            raise ValueError(f"{name}: couplings_ must be zero on the diagonal.")

    def _rebuild(self, parameters: dict[str, torch.Tensor]) -> AssociativeMemory:
        values = parameters["state_values_"]
        if "couplings_" in parameters:
            return PairwiseMemory(parameters["couplings_"], values)
        patterns, power = parameters["patterns_"], self.exponent_ or None
        return DenseMemory(patterns, values, power, self.beta_, self.is_continuous_)

    def _floats_per_row(self) -> int:
        n_patterns = 0 if self.patterns_ is None else len(self.patterns_)
        return 6 * (int(self.n_features_in_) + n_patterns)

    @property
    def _n_features_out(self) -> int:
        return int(self.n_features_in_)

    # ------------------------------------------------------------------ answers

    def _recalled(
        self, memory: Any, s: torch.Tensor, held: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The fixed points that states lead to; warns if some do not settle."""
        if self.is_continuous_:
            s, settled = associative_recall.attention(memory, s, held, self.max_sweeps)
        elif self.update == "synchronous":
            s = associative_recall.rounded(s)
            s, settled = associative_recall.synchronous(memory, s, held, self.max_sweeps)
        else:
            s, order = associative_recall.rounded(s), torch.from_numpy(self.update_order_)
            s, settled = associative_recall.asynchronous(memory, s, order, held, self.max_sweeps)
        if not settled and not (self.is_continuous_ and self.max_sweeps == 1):
            warn(
                f"{type(self).__name__}: some recalls did not reach a fixed point within "
                f"max_sweeps={self.max_sweeps}, or ended in a cycle of two states: raise "
                'max_sweeps, or set update="asynchronous".'
            )
        return s

    def transform(self, X: Any) -> Any:
        """Return the stored pattern, or other fixed point, that each row leads to.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to correct, rounded to the nearer state before the first sweep.

        Returns
        -------
        X_recalled : array or tensor of shape (n_samples, n_features)
            States in the values of X.

        Warns
        -----
        UserWarning
            If some rows have not reached a fixed point.
        """
        return self._map_rows(X, lambda m, x: m.decode(self._recalled(m, m.encode(x))), "transform")

    def recall(self, X: Any, known: Any = None) -> Any:
        """Complete rows of which only some features are known.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows; NaN is unknown. Sparse matrices, files too large for scikit-learn's
            ``working_memory``, and dask arrays with a ``known`` for each row must hold no NaN.
        known : array-like of bool, (n_features,) or (n_samples, n_features), default=None
            Features that stay as they are (``value_range="clip"`` clips them). The others start at
            the values of X, or undecided where X is NaN. None keeps all features that are not NaN.

        Returns
        -------
        X_completed : array or tensor of shape (n_samples, n_features)
            The rows with unknown features recalled.
        """
        check_is_fitted(self)
        if is_dask(X) and (known is None or to_numpy(known).ndim == 1):
            return map_blocks(X, lambda block: self.recall(block, known))
        X, seen = fill_gaps(X)

        def complete(memory: AssociativeMemory, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            is_seen, is_held = (z > 0.0).chunk(2, dim=1)
            s = torch.where(is_seen, memory.encode(x), 0.0)
            return torch.where(is_held, x, memory.decode(self._recalled(memory, s, is_held)))

        return self._map_rows(
            X, complete, "recall", beside=lambda rows: _memory.seen_and_held(rows, seen, known)
        )

    def energy(self, X: Any) -> Any:
        """Return E(s) of the state of each row; another name of ``free_energy``.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to evaluate.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Lower for rows near stored ones.
        """
        return self.free_energy(X)

    def free_energy(self, X: Any) -> Any:
        """Return E(s) of the state of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to evaluate; values between the two states are used as they are.

        Returns
        -------
        energy : array or tensor of shape (n_samples,)
            Lower for rows near stored ones.
        """
        return self._map_rows(X, lambda memory, x: memory.free_energy(x), "free_energy")

    def score_samples(self, X: Any) -> Any:
        """Return -E(s) of each row, which is not a log density: there is no log Z.

        Parameters
        ----------
        X : {array-like, sparse matrix, tensor} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Higher for rows near stored ones.
        """
        return self._map_rows(X, lambda memory, x: -memory.free_energy(x), "score_samples")
