"""HopfieldNetwork: what each rule stores, and that recall walks down to it."""

import itertools

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array
from scipy.special import logsumexp, softmax

from sklebm import HopfieldNetwork
from sklebm.inference import associative_recall, storage_rules

SIGNS = np.random.default_rng(0).choice([-1.0, 1.0], size=(6, 60))
DENSE = [
    {"rule": "dense", "power": 3},
    {"rule": "dense", "power": 4},
    {"rule": "dense", "interaction": "exponential", "beta": 0.5},
]
RULES = [{"rule": rule} for rule in ("hebb", "storkey", "pseudo_inverse")]


def naive_couplings(rule, patterns):
    """The couplings by loops over patterns and pairs."""
    n = patterns.shape[1]
    W = np.zeros((n, n))
    for p in patterns:
        old = W.copy()
        for i in range(n):
            for j in range(n):
                if i == j:
                    continue
                W[i, j] += p[i] * p[j] / n
                if rule == "storkey":
                    h_ij = sum(old[i, k] * p[k] for k in range(n) if k not in (i, j))
                    h_ji = sum(old[j, k] * p[k] for k in range(n) if k not in (i, j))
                    W[i, j] -= (p[i] * h_ji + h_ij * p[j]) / n
    return W


def naive_energy(model, s):
    """The energy of one state, from its equation."""
    if model.rule != "dense":
        return -0.5 * s @ model.couplings_ @ s
    overlaps = model.patterns_ @ s
    if model.interaction == "exponential":
        return -logsumexp(model.beta * overlaps) / model.beta
    return -len(s) * np.sum((overlaps / len(s)) ** model.power)


@pytest.mark.parametrize("rule", ["hebb", "storkey"])
def test_couplings_are_those_of_the_rule(rule):
    patterns = SIGNS[:4, :9]
    W = HopfieldNetwork(rule).fit(patterns).couplings_
    np.testing.assert_allclose(W, naive_couplings(rule, patterns), atol=1e-14)


def test_pseudo_inverse_projects_onto_the_stored_rows():
    model = HopfieldNetwork("pseudo_inverse").fit(np.vstack([SIGNS, SIGNS[:2]]))
    whole = model.couplings_ + np.diag(model.self_couplings_)
    np.testing.assert_allclose(whole, np.linalg.pinv(SIGNS) @ SIGNS, atol=1e-12)


@pytest.mark.parametrize("n_patterns", [10, 40])
def test_rows_of_the_pseudo_inverse_are_fixed_points(n_patterns):
    """Also 40 correlated ones of 60 units, of which Hebb's rule keeps none."""
    rng = np.random.default_rng(1)
    X = np.where(rng.random((n_patterns, 60)) < 0.7, 1.0, -1.0)
    model = HopfieldNetwork("pseudo_inverse", random_state=0).fit(X)
    np.testing.assert_array_equal(model.transform(X), X)
    if n_patterns == 40:
        assert not (HopfieldNetwork("hebb", random_state=0).fit(X).transform(X) == X).all(1).any()


@pytest.mark.parametrize("settings", [*RULES, *DENSE])
def test_the_energy_is_the_equation(settings):
    model = HopfieldNetwork(**settings).fit(SIGNS)
    X = np.random.default_rng(1).choice([-1.0, 1.0], size=(20, 60))
    expected = [naive_energy(model, s) for s in X]
    np.testing.assert_allclose(model.free_energy(X), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(model.energy(X), model.free_energy(X))
    np.testing.assert_array_equal(model.score_samples(X), -model.energy(X))


@pytest.mark.parametrize("settings", [*RULES, *DENSE])
def test_the_energy_never_rises_in_asynchronous_recall(settings):
    """After every single change, from random states."""
    model = HopfieldNetwork(random_state=0, **settings).fit(SIGNS)
    memory = model._energy(torch.device("cpu"))
    rng = np.random.default_rng(2)
    s = torch.tensor(rng.choice([-1.0, 1.0], size=(30, 60)))
    energies, changed = [memory.state_energy(s)], 0
    for unit in model.update_order_:
        held = torch.ones_like(s, dtype=torch.bool)
        held[:, int(unit)] = False
        new, _ = associative_recall.asynchronous(
            memory, s, torch.tensor([int(unit)]), held, max_iter=1
        )
        changed += int((new != s).sum())
        s = new
        energies.append(memory.state_energy(s))
    drops = torch.stack(energies).diff(dim=0)
    assert changed > 100
    assert bool((drops <= 1e-12 * (1 + energies[0].abs())).all())
    # The same as one sweep.
    swept, _ = associative_recall.asynchronous(
        memory,
        torch.tensor(np.random.default_rng(2).choice([-1.0, 1.0], size=(30, 60))),
        torch.from_numpy(model.update_order_),
        max_iter=1,
    )
    assert torch.equal(swept, s)


@pytest.mark.parametrize("settings", [*RULES, *DENSE])
def test_recall_ends_at_a_minimum_among_single_changes(settings):
    model = HopfieldNetwork(random_state=0, **settings).fit(SIGNS)
    ends = model.transform(np.random.default_rng(3).choice([-1.0, 1.0], size=(5, 60)))
    for s in ends:
        for i in range(60):
            other = s.copy()
            other[i] *= -1
            assert naive_energy(model, other) >= naive_energy(model, s) - 1e-12


@pytest.mark.parametrize("update", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("settings", [*RULES, *DENSE])
def test_stored_rows_are_recalled_from_damaged_ones(settings, update):
    model = HopfieldNetwork(update=update, random_state=0, **settings).fit(SIGNS[:3])
    damaged = SIGNS[:3].copy()
    damaged[:, :9] *= -1
    np.testing.assert_array_equal(model.transform(damaged), SIGNS[:3])


def test_dense_memories_hold_more_rows_than_units():
    X = np.random.default_rng(4).choice([-1.0, 1.0], size=(80, 40))
    for settings in DENSE[1:]:
        model = HopfieldNetwork(random_state=0, **settings).fit(X)
        assert (model.transform(X) == X).all(axis=1).mean() > 0.95
    hebb = HopfieldNetwork(random_state=0).fit(X)
    assert (hebb.transform(X) == X).all(axis=1).mean() < 0.05


@pytest.mark.parametrize(
    ("power", "n_units", "dtype"), [(20, 100, np.float32), (120, 400, np.float64)]
)
def test_large_powers_store_and_recall(power, n_units, dtype):
    """Overlaps are divided by the number of units before the power is taken."""
    rng = np.random.default_rng(8)
    X = rng.choice([-1.0, 1.0], size=(30, n_units)).astype(dtype)
    model = HopfieldNetwork("dense", power=power, random_state=0).fit(X)
    damaged = X.copy()
    damaged[:, : n_units // 10] *= -1
    expected = [naive_energy(model, s) for s in damaged.astype(np.float64)]
    # A power multiplies the rounding of its base; results are in the type of X.
    rtol = max(4 * power * np.finfo(np.float64).eps, np.finfo(dtype).eps)
    np.testing.assert_allclose(model.energy(damaged), expected, rtol=rtol, atol=0)
    np.testing.assert_array_equal(model.transform(damaged), X)
    # Rows beyond the states are stored as states.
    with pytest.warns(UserWarning, match=r"outside \[-1, 1\]"):
        stored = HopfieldNetwork("dense", power=power, random_state=0).fit(5 * X)
    np.testing.assert_array_equal(stored.patterns_, X)
    assert np.isfinite(stored.energy(5 * X)).all()


@pytest.mark.filterwarnings("ignore:X contains values outside")
@pytest.mark.parametrize(
    ("settings", "dtype", "fits", "overflows"),
    [
        ({}, np.float64, 1e150, 1e154),
        ({"rule": "dense", "power": 8}, np.float64, 1e37, 1e39),
        ({"rule": "dense", "power": 8}, np.float32, 1e4, 1e5),
        ({"states": "continuous", "beta": 0.5}, np.float64, 1e150, 1e154),
        ({"states": "continuous", "beta": 1e10}, np.float64, 1e140, 1e150),
        ({"states": "continuous"}, np.float32, 1e17, 1e20),
    ],
)
def test_rows_whose_energies_overflow_are_refused(settings, dtype, fits, overflows):
    """What is stored has a finite energy, in the dtype of the rows."""
    if "states" in settings:
        settings = {"rule": "dense", "interaction": "exponential", **settings}
    X = SIGNS.astype(dtype)
    model = HopfieldNetwork(**settings, random_state=0).fit(dtype(fits) * X)
    assert np.isfinite(model.energy(dtype(fits) * X)).all()
    with pytest.raises(FloatingPointError, match=r"up to 1e\+\d+, whose energies overflow. Scale"):
        model.partial_fit(dtype(overflows) * X)
    assert model.n_patterns_ == 6
    if "states" not in settings:
        model.set_params(value_range="clip").partial_fit(dtype(overflows) * X)
        assert model.n_patterns_ == 12


def test_continuous_recall_is_a_step_of_softmax_attention():
    rng = np.random.default_rng(5)
    keys, queries = rng.standard_normal((7, 4)), rng.standard_normal((9, 4))
    settings = {"rule": "dense", "interaction": "exponential", "states": "continuous"}
    model = HopfieldNetwork(beta=0.7, max_sweeps=1, **settings).fit(keys)
    attention = softmax(0.7 * queries @ keys.T, axis=1) @ keys
    np.testing.assert_allclose(model.transform(queries), attention, rtol=1e-12, atol=1e-12)
    expected = -logsumexp(0.7 * queries @ keys.T, axis=1, b=1 / 7) / 0.7
    expected = expected + 0.5 * (queries**2).sum(axis=1)
    np.testing.assert_allclose(model.energy(queries), expected, rtol=1e-12, atol=1e-12)
    # Every further step lowers the energy.
    states = [queries]
    for _ in range(6):
        states.append(model.transform(states[-1]))
    energies = np.array([model.energy(s) for s in states])
    assert (np.diff(energies, axis=0) <= 1e-12).all()
    # With a large beta, recall ends at a stored row; of equal lengths, at the nearest.
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    sharp = HopfieldNetwork(beta=500.0, **settings).fit(keys)
    np.testing.assert_allclose(sharp.transform(keys + 0.01), keys, atol=1e-6)


def test_rows_are_completed_and_known_entries_stay():
    model = HopfieldNetwork(random_state=0).fit(SIGNS[:4])
    X, known = SIGNS[:4].copy(), np.arange(60) < 30
    X[:, ~known] = np.nan
    np.testing.assert_array_equal(model.recall(X), SIGNS[:4])
    np.testing.assert_array_equal(model.recall(X, known), SIGNS[:4])
    # Held entries stay, also wrong ones; the others start where X puts them.
    wrong = SIGNS[:1] * np.where(np.arange(60) < 3, -1, 1)
    found = model.recall(wrong, np.arange(60) < 3)
    np.testing.assert_array_equal(found[0, :3], -SIGNS[0, :3])
    np.testing.assert_array_equal(found[0, 3:], SIGNS[0, 3:])
    with pytest.raises(ValueError, match="known is True where X is NaN"):
        model.recall(X, np.ones(60, dtype=bool))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["array", "list", "tensor", "pandas", "polars"])
def test_recall_takes_rows_as_transform_does(kind, dtype):
    """In any type, which the answer keeps; gaps and known values of each row are its own."""
    names = [f"x{i}" for i in range(60)]
    frame = pd.DataFrame(SIGNS[:4], columns=names)
    model = HopfieldNetwork(random_state=0).fit(
        frame if kind in ("pandas", "polars") else SIGNS[:4]
    )
    X = SIGNS[:4].astype(dtype)
    for row, n_gaps in enumerate((0, 10, 20, 30)):
        X[row, :n_gaps] = np.nan
    make = {
        "array": np.asarray,
        "list": lambda X: X.tolist(),
        "tensor": torch.from_numpy,
        "pandas": lambda X: pd.DataFrame(X, columns=names),
        "polars": lambda X: pl.DataFrame(X, schema=names).fill_nan(None),
    }[kind]
    given, flipped = make(X), make(np.where(np.isnan(X), X, -X))
    found, whole = model.recall(given), model.transform(given[:1])
    assert type(found) is type(whole)
    assert found.dtype == whole.dtype
    np.testing.assert_array_equal(found, SIGNS[:4])
    kept = model.recall(flipped, known=(~np.isnan(X)).astype(int))
    np.testing.assert_array_equal(kept[~np.isnan(X)], -X[~np.isnan(X)])


def test_recall_refuses_rows_that_transform_refuses():
    names = [f"x{i}" for i in range(60)]
    frame = pd.DataFrame(SIGNS[:4], columns=names)
    model = HopfieldNetwork(random_state=0).fit(frame)
    gaps = frame.copy()
    gaps.iloc[:, :20] = np.nan
    np.testing.assert_array_equal(model.recall(gaps), SIGNS[:4])
    for refused in (gaps[names[::-1]], gaps.rename(columns={"x0": "y"}), gaps[names[:5]]):
        with pytest.raises(ValueError, match="feature names should match"):
            model.recall(refused)
    model = HopfieldNetwork(random_state=0).fit(SIGNS[:4])
    for refused, message in (
        (SIGNS[0], "Expected 2D array, got 1D array"),
        (SIGNS[:, :5], "X has 5 features, but HopfieldNetwork is expecting 60 features"),
        (np.where(np.arange(60) < 3, np.inf, SIGNS), "infinity .* in column 0"),
        ("rows.csv", "needs a table of numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model.recall(refused)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (np.ones(5, bool), r"known has shape \(5,\), but X has shape \(6, 60\): pass one value"),
        (np.ones((1, 60), bool), r"known has shape \(1, 60\), but X has shape \(6, 60\)"),
        (np.full(60, 0.5), "known must hold booleans, or zeros and ones: true where X stays"),
        (np.full(60, "yes"), "known must hold booleans"),
    ],
)
def test_recall_says_what_is_wrong_with_known(known, message):
    with pytest.raises(ValueError, match=message):
        HopfieldNetwork(random_state=0).fit(SIGNS).recall(SIGNS, known)


def test_recall_of_dask_arrays_is_that_of_their_rows():
    dask = pytest.importorskip("dask.array")
    model = HopfieldNetwork(random_state=0).fit(SIGNS[:4])
    X = np.where(np.arange(60) < 20, np.nan, SIGNS[:4])
    lazy = dask.from_array(X, chunks=(3, 60))
    np.testing.assert_array_equal(model.recall(lazy).compute(), SIGNS[:4])
    known = np.arange(60) >= 40
    np.testing.assert_array_equal(model.recall(lazy, known).compute(), model.recall(X, known))


def test_bits_and_signs_store_the_same():
    bits = 0.5 * (SIGNS + 1)
    signs = HopfieldNetwork("storkey", random_state=0).fit(SIGNS)
    model = HopfieldNetwork("storkey", random_state=0).fit(bits)
    np.testing.assert_array_equal(model.couplings_, signs.couplings_)
    noisy = np.random.default_rng(6).choice([-1.0, 1.0], size=(8, 60))
    np.testing.assert_array_equal(
        model.transform(0.5 * (noisy + 1)), 0.5 * (signs.transform(noisy) + 1)
    )
    given = HopfieldNetwork(states="signs").fit(bits)
    np.testing.assert_array_equal(given.state_values_, [-1.0, 1.0])


@pytest.mark.parametrize("settings", [*RULES, *DENSE])
def test_chunks_store_what_one_fit_stores(settings):
    whole = HopfieldNetwork(random_state=0, **settings).fit(SIGNS)
    parts = HopfieldNetwork(random_state=0, **settings)
    for chunk in (SIGNS[:1], SIGNS[1:4], SIGNS[4:]):
        parts.partial_fit(chunk)
    np.testing.assert_allclose(parts.free_energy(SIGNS), whole.free_energy(SIGNS), rtol=1e-12)
    assert parts.n_patterns_ == 6


def test_a_cycle_of_two_is_found_and_said():
    """Two units that repel each other turn together for ever, if they turn at once."""
    model = HopfieldNetwork.from_parameters(
        couplings=[[0.0, -1.0], [-1.0, 0.0]], state_values=[-1.0, 1.0], update="synchronous"
    )
    with pytest.warns(UserWarning, match="in a cycle of two states"):
        ends = model.transform([[1.0, 1.0], [1.0, -1.0]])
    np.testing.assert_array_equal(ends[1], [1.0, -1.0])
    assert abs(ends[0].sum()) == 2.0
    found = model.set_params(update="asynchronous").transform([[1.0, 1.0]])
    np.testing.assert_array_equal(found, [[-1.0, 1.0]])


def test_hebb_holds_a_tenth_of_its_units_and_not_a_fifth():
    """0.138 in the limit, which benchmarks/bench_hopfield_capacity.py draws."""
    overlaps = []
    for share in (0.10, 0.20):
        X = np.random.default_rng(7).choice([-1.0, 1.0], size=(round(share * 400), 400))
        memory = HopfieldNetwork().fit(X)._energy(torch.device("cpu"))
        s, _ = associative_recall.synchronous(memory, torch.tensor(X[:20]), max_iter=40)
        overlaps.append(float((s.numpy() * X[:20]).mean()))
    assert overlaps[0] > 0.95
    assert overlaps[1] < 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"states": "continuous"}, 'states="continuous" needs rule="dense"'),
        ({"states": "continuous", "rule": "dense"}, 'interaction="exponential"'),
    ],
)
def test_what_does_not_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HopfieldNetwork(**settings).fit(SIGNS)


def test_what_stores_nothing_is_said():
    with pytest.warns(UserWarning, match="span all 3 features"):
        HopfieldNetwork("pseudo_inverse").fit(np.eye(3))
    with pytest.warns(UserWarning, match=r"outside \[-1, 1\] \(min=-1, max=7\)"):
        model = HopfieldNetwork().fit([[7.0, -1.0], [1.0, 1.0]])
    with pytest.warns(UserWarning, match=r"outside \[-1, 1\] \(min=1, max=9\)"):
        model.partial_fit([[9.0, 1.0]])


@pytest.mark.parametrize("settings", [*RULES, *DENSE])
def test_csr_rows_are_dense_rows(settings):
    bits = 0.5 * (SIGNS + 1)
    dense = HopfieldNetwork(random_state=0, **settings).fit(bits[:4]).partial_fit(bits[4:])
    sparse = HopfieldNetwork(random_state=0, **settings).fit(csr_array(bits[:4]))
    sparse.partial_fit(csr_array(bits[4:]))
    noisy = np.random.default_rng(9).integers(2, size=(8, 60)).astype(float)
    known = np.arange(60) < 30
    calls = {"energy": (), "score_samples": (), "transform": (), "recall": (known,)}
    for method, extra in calls.items():
        expected = getattr(dense, method)(noisy, *extra)
        np.testing.assert_array_equal(getattr(sparse, method)(csr_array(noisy), *extra), expected)
    # Signs are dense, but may come as csr.
    signs = HopfieldNetwork(random_state=0, **settings).fit(csr_array(SIGNS))
    np.testing.assert_array_equal(signs.energy(csr_array(SIGNS)), signs.energy(SIGNS))


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_values_outside_the_states_are_clipped_or_refused_on_request(low):
    rows = SIGNS if low else 0.5 * (SIGNS + 1)
    wide, states = rows + 3.0 * (2.0 * rows - 1.0 - low), "signs" if low else "bits"
    model = HopfieldNetwork(states=states, value_range="clip", random_state=0).fit(wide)
    expected = HopfieldNetwork(random_state=0).fit(rows)
    np.testing.assert_array_equal(model.couplings_, expected.couplings_)
    for method in ("energy", "score_samples", "transform", "recall"):
        answers = getattr(expected, method)(rows)
        np.testing.assert_array_equal(getattr(model, method)(wide), answers)
        model.set_params(value_range="raise")
        np.testing.assert_array_equal(getattr(model, method)(rows), answers)
        with pytest.raises(ValueError, match=rf"outside \[{low:g}, 1\] .*MinMaxScaler"):
            getattr(model, method)(wide)
        model.set_params(value_range="clip")
    before = model.n_patterns_
    with pytest.raises(ValueError, match="but HopfieldNetwork has states of"):
        model.set_params(value_range="raise").partial_fit(wide)
    assert model.n_patterns_ == before


def test_bits_that_overshoot_by_rounding_are_bits():
    """As those of a scaler may."""
    bits = 0.5 * (SIGNS + 1) * (1.0 + 2.0 * np.finfo(float).eps)
    model = HopfieldNetwork(random_state=0).fit(bits)
    np.testing.assert_array_equal(model.state_values_, [0.0, 1.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"couplings": [[0.0, 1.0], [2.0, 0.0]]}, "must be symmetric"),
        ({"couplings": np.eye(2)}, "zero on the diagonal"),
        ({"patterns": np.eye(2)}, "needs couplings"),
        ({"couplings": np.zeros((2, 2)), "rule": "dense"}, "needs patterns"),
    ],
)
def test_parameters_that_make_no_memory_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        HopfieldNetwork.from_parameters(state_values=[-1.0, 1.0], **given)


def test_a_projection_goes_on_from_its_parameters():
    """With its diagonal, by which projections differ that have the same couplings."""
    first = HopfieldNetwork("pseudo_inverse", random_state=0).fit(SIGNS[:3])
    given = {"couplings": first.couplings_, "state_values": [-1.0, 1.0], "rule": "pseudo_inverse"}
    with pytest.raises(ValueError, match="needs self_couplings beside couplings"):
        HopfieldNetwork.from_parameters(**given)
    made = HopfieldNetwork.from_parameters(self_couplings=first.self_couplings_, **given)
    made.partial_fit(SIGNS[3:])
    whole = made.couplings_ + np.diag(made.self_couplings_)
    np.testing.assert_allclose(whole, np.linalg.pinv(SIGNS) @ SIGNS, atol=1e-12)
    # A model without one, from a file of before, recalls but stores no more.
    first.self_couplings_ = None
    np.testing.assert_array_equal(first.transform(SIGNS[:3]), SIGNS[:3])
    with pytest.raises(ValueError, match="needs self_couplings beside couplings"):
        first.partial_fit(SIGNS[3:])
    assert first.n_patterns_ == 3


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        *itertools.permutations([{"rule": rule} for rule in (*storage_rules.RULES, "dense")], 2),
        ({"rule": "dense", "power": 3}, {"power": 4}),
        ({"rule": "dense", "interaction": "exponential"}, {"beta": 2.0}),
    ],
)
def test_another_rule_cannot_go_on(stored, asked):
    """It would mix couplings of both; the stored ones stay, and fit starts anew."""
    model = HopfieldNetwork(**stored, random_state=0).fit(SIGNS)
    before = model.free_energy(SIGNS)
    with pytest.raises(ValueError, match="cannot go on from what another rule has stored"):
        model.set_params(**asked).partial_fit(SIGNS[:2])
    np.testing.assert_array_equal(model.free_energy(SIGNS), before)
    anew = HopfieldNetwork(**{**stored, **asked}, random_state=0).fit(SIGNS)
    np.testing.assert_array_equal(model.fit(SIGNS).free_energy(SIGNS), anew.free_energy(SIGNS))


def test_values_of_the_states_may_be_in_either_order():
    """-1 may stand for the state that others call 1; clipping keeps between both."""
    states = np.where(np.random.default_rng(0).random((3, 8)) < 0.5, -1.0, 1.0)
    couplings = states.T @ states / 8 - 3 / 8 * np.eye(8)
    model = HopfieldNetwork.from_parameters(
        couplings=couplings, state_values=np.array([1.0, -1.0]), value_range="clip"
    )
    np.testing.assert_array_equal(model.score_samples(3.0 * states), model.score_samples(states))
    assert len(np.unique(model.transform(states))) == 2


def test_one_sweep_warns_of_states_that_have_not_settled():
    generator = np.random.default_rng(1)
    noisy = np.where(generator.random(SIGNS.shape) < 0.3, -SIGNS, SIGNS)
    with pytest.warns(UserWarning, match="did not reach a fixed point within max_sweeps=1"):
        HopfieldNetwork(max_sweeps=1, random_state=0).fit(SIGNS).transform(noisy)
