"""Properties that hold for any rows: hypothesis looks for counterexamples.

Values are bounded, so that float64 rounding stays far below the tolerances; denormals, constant
and repeated columns, and repeated rows are drawn on purpose.
"""

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import sklebm
from sklebm.energies import PrototypeEnergy, QuadraticEnergy, networks
from sklebm.objectives import penalties
from tests.registry import (
    DEPEND_ON_NEIGHBOURS,
    NAMES,
    entry,
    fitted_state,
    freeze,
    make_brief,
    make_rows,
    names_with,
    row_methods,
)

ALLOWED = (ValueError, TypeError, FloatingPointError)
every = pytest.mark.parametrize("name", NAMES)
# Equal pixels tie for the largest of a pool, and rounding breaks the tie.
TIES = {"DeconvolutionalNetwork"}
values = st.one_of(
    st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, 1.0, 5e-324, -1e-310, 1e-40, 1e3])
)


@st.composite
def tables(draw, min_rows=1, dtypes=("f2", "f4", "f8", "i8", "u1", "?")):
    """Rows of any numeric dtype, some with constant or repeated columns and repeated rows."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(st.tuples(st.integers(min_rows, 40), st.integers(1, 12)))
    if dtype.kind == "f":
        X = draw(hnp.arrays(np.float64, shape, elements=values)).astype(dtype)
    else:
        X = draw(hnp.arrays(dtype, shape))
        X = X % 1000 if dtype.kind == "i" else X
    change = draw(st.sampled_from(["nothing", "constant", "repeated column", "repeated row"]))
    if change == "constant":
        X[:, 0] = X[0, 0]
    elif change == "repeated column":
        X[:, -1] = X[:, 0]
    elif change == "repeated row":
        X[:] = X[0]
    return X


def fit_or_refuse(name, X):
    """A fitted estimator; None if it refuses, which it may, but only in an allowed way (P3)."""
    model = make_brief(name)
    before, rows_before = freeze(vars(model)), freeze(X)
    try:
        model.fit(X)
    except ALLOWED:
        assert freeze(vars(model)) == before
        return None
    finally:
        assert freeze(X) == rows_before  # P1
    return model


@every
@pytest.mark.filterwarnings("ignore::UserWarning")
@hypothesis.given(data=st.data())
def test_any_table_gives_finite_answers_or_a_clear_refusal(name, data):
    """Shape, dtype and finiteness of every answer; X is left alone; score is the mean."""
    X = data.draw(tables())
    model = fit_or_refuse(name, X)
    if model is None:
        return
    expected = X.dtype if X.dtype in (np.float32, np.float64) else np.float64
    for method in row_methods(model):
        before = freeze(X)
        answer = getattr(model, method)(X)
        assert freeze(X) == before
        assert len(answer) == len(X)
        assert np.isfinite(answer).all()
        if method != "predict":
            assert answer.dtype == (np.float32 if X.dtype == np.float16 else expected)
    if hasattr(model, "score"):
        scores = model.score_samples(X)
        rounding = 1e-5 if scores.dtype == np.float32 else 1e-9
        # score takes the upper end of the interval of log Z, see the contract.
        interval = getattr(model, "log_partition_interval_", None)
        slack = 0.0 if interval is None else interval[1] - model.log_partition_
        mean = np.mean(scores, dtype=np.float64) - slack
        assert model.score(X) == pytest.approx(mean, rel=rounding, abs=rounding)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DEPEND_ON_NEIGHBOURS])
@pytest.mark.filterwarnings("ignore::UserWarning")
@hypothesis.given(data=st.data())
def test_rows_answer_for_themselves(name, data):
    """Any order and any part of the rows, whatever they were fitted with."""
    X = data.draw(tables(min_rows=3, dtypes=["f8"]))
    model = fit_or_refuse(name, X)
    if model is None:
        return
    order = data.draw(st.permutations(range(len(X))))
    if name in TIES:
        X = X + 1e-3 * np.random.default_rng(0).standard_normal(X.shape)
    for method in set(row_methods(model)) - {"predict"}:  # a tie may break either way
        whole = getattr(model, method)(X)
        # Distances are square roots of sums, which double their rounding at zero.
        rounding = 1e-7 if method == "transform" else 1e-9
        # A distance from the typical score keeps the rounding of both scores.
        size = 1.0 + np.abs(whole).max() + abs(getattr(model, "entropy_", 0.0))
        scale = max(rounding, entry(name).rounding) * size
        np.testing.assert_allclose(getattr(model, method)(X[order]), whole[order], atol=scale)
        np.testing.assert_allclose(getattr(model, method)(X[:1]), whole[:1], atol=scale)


@every
@pytest.mark.skipif(not hasattr(sklebm, "save"), reason="sklebm.save does not exist yet")
@pytest.mark.filterwarnings("ignore::UserWarning")
@hypothesis.given(data=st.data())
def test_saved_and_loaded_is_the_same(name, data, tmp_path_factory):
    """Answers of the copy are those of the original, to the bit."""
    X = data.draw(tables(dtypes=["f4", "f8"]))
    model = fit_or_refuse(name, X)
    if model is None:
        return
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    sklebm.save(model, path)
    twin = sklebm.load(path)
    assert freeze(fitted_state(twin)) == freeze(fitted_state(model))
    np.testing.assert_array_equal(twin.score_samples(X), model.score_samples(X))


@hypothesis.given(seed=st.integers(0, 2**31 - 1), beta=st.floats(0.1, 5.0))
def test_energy_gradients_are_those_of_finite_differences(seed, beta):
    """The closed forms of the energies are differentiable, in float64 to 1e-5."""
    generator = torch.Generator().manual_seed(seed)
    double = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(5, 3, **double).requires_grad_()
    directions = torch.linalg.qr(torch.randn(3, 3, **double))[0][:2]
    variances = 0.5 + torch.rand(2, **double)
    prototypes = PrototypeEnergy(torch.randn(4, 3, **double))
    gaussian = QuadraticEnergy(torch.randn(3, **double), directions, variances, 0.3)
    assert torch.autograd.gradcheck(lambda v: prototypes.free_energy(v, beta), x, rtol=1e-5)
    assert torch.autograd.gradcheck(gaussian.free_energy, x, rtol=1e-5)


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    last=st.sampled_from(["sigmoid", "tanh", "relu", "identity"]),
    scale=st.floats(1e-3, 1e3),
    target=st.floats(0.01, 0.99),
)
def test_penalties_are_never_negative(seed, last, scale, target):
    """Up to rounding, for codes and weights of any size."""
    generator = torch.Generator().manual_seed(seed)
    encoder = networks.make_encoder((4,), [5], 3, "tanh", last)
    encoder.to_empty(device="cpu").double()
    for parameter in encoder.parameters():
        parameter.data.normal_(0.0, scale, generator=generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    z = encoder(x)
    assert (penalties.jacobian_norm(encoder, x, None)[1] >= 0).all()
    assert (penalties.l1_penalty(z) >= 0).all()
    assert (penalties.kl_penalty(torch.sigmoid(z), target) >= -1e-12).all()
    for function in penalties.COMPLEMENTS:
        assert (penalties.saturation_penalty(z, function) >= 0).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@hypothesis.given(X=tables(min_rows=2, dtypes=["f4", "f8"]))
@pytest.mark.parametrize("name", ["PCAWhitener", "ZCAWhitener"])
def test_whitened_rows_have_the_identity_as_covariance(name, X):
    """1 along every direction in which the rows vary, 0 along the others."""
    model = make_brief(name, ridge=0).fit(X)
    n_directions = np.count_nonzero(model.explained_variance_)
    whitened = model.transform(X.astype(np.float64))
    spectrum = np.linalg.eigvalsh(np.atleast_2d(np.cov(whitened.T)))[::-1]
    # Directions whose variance is a rounding error of the largest one are resolved less well.
    ratio = model.explained_variance_[:n_directions] / model.explained_variance_[0]
    clear = int(np.count_nonzero(ratio > 1e-6))
    # Those resolved less well may have any eigenvalue, the largest as well.
    assert np.isclose(spectrum, 1.0, rtol=0, atol=1e-5).sum() >= clear
    assert np.isclose(spectrum, 0.0, rtol=0, atol=1e-5).sum() >= len(spectrum) - n_directions


@pytest.mark.filterwarnings("ignore::UserWarning")
@hypothesis.given(X=tables(min_rows=8, dtypes=["f4", "f8"]), n_clusters=st.integers(1, 6))
def test_more_lloyd_iterations_never_raise_the_inertia(X, n_clusters):
    """Up to the rounding of the sums."""
    inertias = [
        sklebm.EnergyKMeans(n_clusters, max_iter=n, tol=0.0, random_state=0).fit(X).inertia_
        for n in (1, 2, 3, 5, 50)
    ]
    slack = 100 * np.finfo(X.dtype).eps * (1.0 + np.square(X.astype(np.float64)).sum())
    assert (np.diff(inertias) <= slack).all(), inertias


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", names_with("partial_fit"))
@hypothesis.given(data=st.data())
def test_learning_goes_on_or_is_refused(name, data):
    """Chunks of any content after a fit: finite answers, or the estimator as it was."""
    model = make_brief(name).fit(make_rows())
    chunk = data.draw(tables(dtypes=["f4", "f8"]))
    before = freeze(vars(model))
    try:
        model.partial_fit(chunk)
    except ALLOWED:
        assert freeze(vars(model)) == before
    assert np.isfinite(model.score_samples(make_rows())).all()
