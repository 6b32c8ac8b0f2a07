"""Gated Boltzmann machines against enumeration, and what they learn about pairs of images."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from sklebm import GatedBM, save
from sklebm.boltzmann._pairs import BinaryPairEnergy
from sklebm.datasets import make_shifted_pairs
from sklebm.energies import Bernoulli, Gaussian
from sklebm.energies.gated import FactoredCoupling, GatedEnergy, TensorCoupling
from sklebm.inference import ais, clamped_annealing
from sklebm.inference.gated_path import GatedPath
from sklebm.inference.gibbs import BlockGibbs
from sklebm.objectives import Batch, MaximumLikelihood
from tests.registry import make_rows

N_LEFT, N_RIGHT, N_HIDDEN, N_FACTORS = 3, 2, 3, 4


def draw(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def make_energy(*, binary=True, factored=False, conditional=False, scale=1.0):
    coupling = (
        FactoredCoupling(
            draw(N_FACTORS, N_LEFT, scale=scale),
            draw(N_FACTORS, N_RIGHT),
            draw(N_FACTORS, N_HIDDEN),
        )
        if factored
        else TensorCoupling(draw(N_HIDDEN, N_LEFT, N_RIGHT, scale=scale))
    )

    def units(bias):
        return Bernoulli(bias) if binary else Gaussian(bias, torch.zeros(1, dtype=torch.float64))

    left = None if conditional else units(draw(N_LEFT, scale=0.5, seed=1))
    kind = BinaryPairEnergy if binary else GatedEnergy
    hidden = Bernoulli(draw(N_HIDDEN, scale=0.5, seed=3))
    return kind(left, units(draw(N_RIGHT, scale=0.5, seed=2)), hidden, coupling, N_LEFT)


def numbers(energy):
    """W, b, c and d as arrays; W summed over the factors one by one."""
    coupling = energy.coupling
    if isinstance(coupling, FactoredCoupling):
        factors = coupling.left_factors, coupling.right_factors, coupling.hidden_factors
        u, v, g = (factor.detach().numpy() for factor in factors)
        tensor = sum(g[f][:, None, None] * np.outer(u[f], v[f]) for f in range(len(u)))
    else:
        tensor = coupling.weights.detach().numpy()
    biases = (energy.left, energy.right, energy.hidden)
    return tensor, *(0.0 if part is None else part.bias.detach().numpy() for part in biases)


def minus_energy(energy, x, y, z):
    """-E of one state of binary views, from its equation."""
    tensor, b, c, d = numbers(energy)
    return np.sum(b * x) + c @ y + d @ z + np.einsum("k,kij,i,j->", z, tensor, x, y)


def bits(n):
    return [np.array(state) for state in product((0.0, 1.0), repeat=n)]


def as_rows(*parts):
    return torch.from_numpy(np.concatenate(parts))[None]


# ---------------------------------------------------------------- conditionals


@pytest.mark.parametrize("factored", [False, True])
def test_all_three_conditionals_are_those_of_the_enumerated_joint(factored):
    energy = make_energy(factored=factored)
    with torch.no_grad():
        for x in bits(N_LEFT):
            for y in bits(N_RIGHT):
                given = np.array([minus_energy(energy, x, y, z) for z in bits(N_HIDDEN)])
                p = np.exp(given - logsumexp(given))
                expected = p @ np.array(bits(N_HIDDEN))
                np.testing.assert_allclose(
                    energy.hidden_mean(as_rows(x, y))[0], expected, rtol=1e-12
                )
            for z in bits(N_HIDDEN):
                given = np.array([minus_energy(energy, x, y, z) for y in bits(N_RIGHT)])
                expected = np.exp(given - logsumexp(given)) @ np.array(bits(N_RIGHT))
                found = energy.right_mean(as_rows(x), as_rows(z))
                np.testing.assert_allclose(found[0], expected, rtol=1e-12)
        for y, z in product(bits(N_RIGHT), bits(N_HIDDEN)):
            given = np.array([minus_energy(energy, x, y, z) for x in bits(N_LEFT)])
            expected = np.exp(given - logsumexp(given)) @ np.array(bits(N_LEFT))
            np.testing.assert_allclose(
                energy.left_mean(as_rows(y), as_rows(z))[0], expected, rtol=1e-12
            )


def test_real_views_are_linear_functions_of_each_other():
    energy = make_energy(binary=False)
    tensor, b, c, d = numbers(energy)
    x, y, z = np.array([0.3, -2.0, 1.1]), np.array([0.7, 4.0]), np.array([1.0, 0.0, 1.0])
    with torch.no_grad():
        right = energy.right_mean(as_rows(x), as_rows(z))[0]
        left = energy.left_mean(as_rows(y), as_rows(z))[0]
        hidden = energy.hidden_mean(as_rows(x, y))[0]
        value = float(energy.energy(as_rows(x, y), as_rows(z)))
    np.testing.assert_allclose(right, c + np.einsum("k,kij,i->j", z, tensor, x), rtol=1e-12)
    np.testing.assert_allclose(left, b + np.einsum("k,kij,j->i", z, tensor, y), rtol=1e-12)
    products = np.einsum("kij,i,j->k", tensor, x, y)
    np.testing.assert_allclose(hidden, expit(d + products), rtol=1e-12)
    expected = ((x - b) ** 2).sum() / 2 + ((y - c) ** 2).sum() / 2 - d @ z - products @ z
    assert value == pytest.approx(expected, rel=1e-12)


def test_factors_of_full_rank_equal_the_tensor():
    """W = sum over all (k, i, j) of W_kij e_k e_i e_j: with as many factors, any tensor."""
    tensor = draw(N_HIDDEN, N_LEFT, N_RIGHT)
    places = list(product(range(N_HIDDEN), range(N_LEFT), range(N_RIGHT)))
    k, i, j = (torch.tensor(index) for index in zip(*places, strict=True))
    one = torch.nn.functional.one_hot
    factored = FactoredCoupling(
        one(i, N_LEFT).double(),
        one(j, N_RIGHT).double(),
        tensor[k, i, j][:, None] * one(k, N_HIDDEN),
    )
    full = TensorCoupling(tensor)
    x, y, z = draw(7, N_LEFT, seed=9), draw(7, N_RIGHT, seed=9), draw(7, N_HIDDEN, seed=9)
    with torch.no_grad():
        asked = {
            "hidden": (x, y),
            "right": (x, z),
            "left": (y, z),
            "given_left": (x,),
            "tensor": (),
        }
        for name, arguments in asked.items():
            expected, found = (getattr(part, name)(*arguments) for part in (full, factored))
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- likelihoods


def log_given_left(tensor, c, d, x, y, binary):
    """log p(y | x) of one row by enumeration; of real values, by the Gaussian of each z."""
    joint, total = [], []
    for z in torch.tensor(np.array(bits(len(d)))):
        mean = c + torch.einsum("k,kij,i->j", z, tensor, x)
        if binary:
            joint.append(d @ z + mean @ y)
            total += [d @ z + mean @ other for other in torch.tensor(np.array(bits(len(c))))]
        else:
            joint.append(d @ z + mean @ y - y @ y / 2)
            total.append(d @ z + mean @ mean / 2 + len(c) / 2 * np.log(2 * np.pi))
    return torch.logsumexp(torch.stack(joint), 0) - torch.logsumexp(torch.stack(total), 0)


@pytest.mark.parametrize("binary", [True, False])
def test_gradient_of_the_conditional_likelihood_is_that_of_enumeration(binary):
    energy = make_energy(binary=binary, conditional=True)
    rows = draw(5, N_LEFT + N_RIGHT, seed=4)
    rows = (rows > 0).double() if binary else rows
    loss, _ = MaximumLikelihood().loss(energy, Batch(rows), {}, None)
    own = [energy.coupling.weights, energy.right.bias, energy.hidden.bias]
    found = torch.autograd.grad(loss, own)
    naive = [parameter.detach().clone().requires_grad_() for parameter in own]
    values = [
        log_given_left(*naive, *energy.split(row[None])[0], row[N_LEFT:], binary) for row in rows
    ]
    expected = torch.autograd.grad(-torch.stack(values).mean(), naive)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    assert float(loss.detach()) == pytest.approx(
        -float(torch.stack(values).detach().mean()), rel=1e-12
    )


@pytest.mark.parametrize("factored", [False, True])
def test_log_z_of_binary_views_is_enumerated(factored):
    energy = make_energy(factored=factored)
    states = product(bits(N_LEFT), bits(N_RIGHT), bits(N_HIDDEN))
    expected = logsumexp([minus_energy(energy, *state) for state in states])
    assert float(energy.exact_log_partition().detach()) == pytest.approx(expected, rel=1e-12)


def test_log_z_of_real_views_is_the_integral():
    """Over one x and one y, on a grid as fine and wide as makes its error negligible."""
    weights = torch.tensor([[[0.4]], [[-0.3]]], dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.float64)
    units = [Gaussian(torch.tensor([v], dtype=torch.float64), one) for v in (0.5, -0.8)]
    hidden = Bernoulli(torch.tensor([0.2, -0.4], dtype=torch.float64))
    energy = GatedEnergy(*units, hidden, TensorCoupling(weights), 1)
    axis = torch.linspace(-12.0, 12.0, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        integral = torch.logsumexp(-energy.free_energy(grid), 0) + 2 * (axis[1] - axis[0]).log()
        assert float(energy.exact_log_partition()) == pytest.approx(float(integral), abs=1e-8)


def test_annealed_normalisers_agree_with_exact_ones():
    """Within four standard errors of the annealed mean, by its own chains (and float rounding)."""
    for binary in (True, False):
        energy = make_energy(binary=binary, conditional=True, scale=0.7)
        x = draw(4, N_LEFT, seed=6)
        x = (x > 0).double() if binary else x
        with torch.no_grad():
            exact = energy.log_normaliser(x)
            found = torch.stack(
                [
                    clamped_annealing.log_normaliser(
                        energy,
                        x,
                        torch.Generator().manual_seed(seed),
                        n_chains=20,
                        n_temperatures=100,
                    )
                    for seed in range(20)
                ]
            )
        error = found.std(dim=0) / 20**0.5
        bias = 0.5 * found.var(dim=0)  # log of a mean is too low by about half its variance
        assert ((found.mean(dim=0) - exact).abs() <= 4 * error + 2 * bias + 1e-9).all()


def test_path_between_independent_bits_and_pairs():
    """Annealing gives log Z, and a step at t = 1 leaves the enumerated joint invariant."""
    energy = make_energy()
    path = GatedPath(energy, torch.zeros(N_LEFT + N_RIGHT))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = ais.forward(path, generator, n_chains=2000, n_temperatures=50)
        assert found.low <= float(energy.exact_log_partition()) <= found.high
        states = torch.tensor(np.array(bits(N_LEFT + N_RIGHT)))
        p = torch.softmax(-energy.free_energy(states), 0)
        index = torch.multinomial(p, 200_000, replacement=True, generator=generator)
        v = path.move(states[index], path.observe(states[index]), 1.0, generator)
    assert_same_frequencies(v, p)


@pytest.mark.parametrize("conditional", [False, True])
def test_block_gibbs_leaves_the_model_invariant(conditional):
    """With x clamped it leaves p(y | x) p(x) invariant, whatever p(x) is."""
    energy = make_energy(conditional=conditional)
    generator = torch.Generator().manual_seed(1)
    states = torch.tensor(np.array(bits(N_LEFT + N_RIGHT)))
    with torch.no_grad():
        log_p = -energy.free_energy(states)
        if conditional:
            log_p = log_p - energy.log_normaliser(states[:, :N_LEFT]) + states[:, 0] - states[:, 1]
        p = torch.softmax(log_p, 0)
        index = torch.multinomial(p, 200_000, replacement=True, generator=generator)
        sampler = BlockGibbs()
        chains = sampler.init(generator, states[index], energy)
        v = sampler.step(generator, chains, energy)[0].visible
    assert_same_frequencies(v, p)
    if conditional:
        assert (v[:, :N_LEFT] == states[index, :N_LEFT]).all()


def assert_same_frequencies(v, p):
    """Total variation within five times what exact draws have on average, sqrt(p / n) a state."""
    places = 2 ** torch.arange(v.shape[1] - 1, -1, -1, dtype=v.dtype)
    counts = torch.bincount((v @ places).long(), minlength=len(p)) / len(v)
    assert 0.5 * (counts - p).abs().sum() <= 5 * 0.5 * (p / len(v)).sqrt().sum() * 0.8


# ---------------------------------------------------------------- the estimator


def test_joint_density_integrates_to_one():
    """One column each, on a grid wider than the rows by ten noises."""
    X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 2)) * [1.0, 5.0] + [3.0, -1.0]
    X = X + 0.3 * np.random.default_rng(1).normal(size=X.shape)
    model = GatedBM(3, conditional=False, max_epochs=20, random_state=0).fit(X)
    axes = [
        np.linspace(m - 14 * s, m + 14 * s, 801) for m, s in zip(X.mean(0), X.std(0), strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    area = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert np.exp(model.score_samples(grid)).sum() * area == pytest.approx(1.0, abs=1e-6)
    norm = np.linalg.norm(model.components_, ord=2, axis=(1, 2)).sum()
    assert norm < 1.0
    mean = -0.5 * np.log(2 * np.pi * X.var(axis=0)).sum() - 1.0
    assert model.score(X) > mean + 0.05  # what independent Gaussians have


def test_conditional_density_integrates_to_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    X = np.column_stack([x, np.where(rng.uniform(size=300) < 0.5, 1, -1) * x[:, 0]])
    X[:, 2] += 0.1 * rng.normal(size=300)
    model = GatedBM(4, max_epochs=60, split=2, learning_rate=0.03, random_state=0).fit(X)
    y = np.linspace(-12.0, 12.0, 4001)
    for row in X[:3]:
        line = np.column_stack([np.tile(row[:2], (len(y), 1)), y])
        assert np.exp(model.score_samples(line)).sum() * (y[1] - y[0]) == pytest.approx(1, abs=1e-6)
    # Whether y is x or -x cannot be known: but that it is one of the two can.
    assert model.score(X) > -0.5 * np.log(2 * np.pi * np.e * X[:, 2].var()) + 0.3


def test_bits_given_bits_sum_to_one():
    X = make_rows().round()
    model = GatedBM(3, likelihood="bernoulli", split=4, max_epochs=5, random_state=0).fit(X)
    rows = np.array([[1, 0, 1, 1, *y] for y in product((0.0, 1.0), repeat=2)])
    assert np.exp(model.score_samples(rows)).sum() == pytest.approx(1.0, rel=1e-12)
    joint = GatedBM(3, likelihood="bernoulli", conditional=False, max_epochs=5, random_state=0)
    everything = np.array(list(product((0.0, 1.0), repeat=6)))
    assert np.exp(joint.fit(X).score_samples(everything)).sum() == pytest.approx(1.0, rel=1e-9)


def test_units_of_features_change_the_density_by_their_jacobian_only():
    X = make_rows() - 0.5
    scale = np.logspace(-6, 6, 6)
    model = GatedBM(4, max_epochs=5, random_state=0).fit(X)
    other = GatedBM(4, max_epochs=5, random_state=0).fit(X * scale + 3 * scale)
    expected = model.score_samples(X) - np.log(scale[3:]).sum()
    # Rows are standardised in double precision, but for the rounding of X + 3.
    np.testing.assert_allclose(other.score_samples(X * scale + 3 * scale), expected, rtol=1e-3)


def test_pairs_of_arguments_that_exclude_each_other_are_refused():
    X = make_rows()
    with pytest.raises(ValueError, match="Persistent chains draw x and y"):
        GatedBM(3, objective="pcd", max_epochs=1).fit(X)
    with pytest.raises(ValueError, match=r"split=6 leaves a view without columns"):
        GatedBM(3, split=6, max_epochs=1).fit(X)
    for likelihood, n_states in (("gaussian", 17), ("bernoulli", 20)):
        with pytest.raises(ValueError, match=rf"sums over 2\^{n_states} states, more than 2\^16"):
            GatedBM(
                17,
                likelihood=likelihood,
                conditional=False,
                objective="maximum_likelihood",
                max_epochs=1,
            ).fit(X)
    with pytest.warns(UserWarning, match=r"outside \[0, 1\].*MinMaxScaler.*\"gaussian\""):
        GatedBM(3, likelihood="bernoulli", max_epochs=1).fit(3 * X)
    model = GatedBM(3, likelihood="bernoulli", max_epochs=1, value_range="clip").fit(3 * X)
    codes = model.transform(X)
    np.testing.assert_array_equal(
        model.apply(9 * X[:, :3], codes), model.apply((9 * X[:, :3]).clip(0, 1), codes)
    )
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        model.set_params(value_range="raise").apply(9 * X[:, :3], codes)
    model = GatedBM(3, max_epochs=1, random_state=0).fit(X)
    with pytest.raises(ValueError, match="X_left has 6 columns"):
        model.apply(X, model.transform(X))
    with pytest.raises(ValueError, match="X_left has 5 rows and Z has 120"):
        model.apply(X[:5, :3], model.transform(X))
    with pytest.raises(ValueError, match="n_factors=4 differs from n_factors=None"):
        model.set_params(n_factors=4, warm_start=True).fit(X)
    with pytest.raises(AttributeError, match="for a joint density of x and y, set conditional"):
        model.sample  # noqa: B018


def test_views_of_another_width_are_no_model(tmp_path):
    model = GatedBM(3, max_epochs=1, random_state=0).fit(make_rows())
    model.n_left_, model.components_ = 2, model.components_[:, :2]
    with pytest.raises(ValueError, match="views have 2 and 3 columns, but rows have 6"):
        save(model, tmp_path / "model.safetensors")


# ---------------------------------------------------------------- what it learns


def peak(image):
    """The frequency of largest amplitude, up to its sign."""
    spectrum = np.abs(np.fft.rfft2(image - image.mean()))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    if column in (0, image.shape[1] / 2):
        row = min(row, len(image) - row)
    return int(row), int(column)


@pytest.fixture(scope="module")
def shifted():
    """A machine of shifted images of 6 x 6 pixels, and other pairs."""
    shape = (6, 6)
    X, _ = make_shifted_pairs(4000, shape, max_shift=1, density=0.2, random_state=0)
    model = GatedBM(32, n_factors=64, max_epochs=50, random_state=0).fit(X)
    return shape, model, make_shifted_pairs(1000, shape, max_shift=1, density=0.2, random_state=1)


def test_filters_of_shifts_are_fourier_components(shifted):
    """Both filters of a factor peak at one frequency, in four fifths of the factors or more."""
    shape, model, _ = shifted
    pairs = zip(model.left_factors_, model.right_factors_, strict=True)
    same = [peak(u.reshape(shape)) == peak(v.reshape(shape)) for u, v in pairs]
    assert np.mean(same) >= 0.8
    # White filters would agree by chance in one of 19 frequencies.
    assert len({peak(u.reshape(shape)) for u in model.left_factors_}) >= 10


@pytest.mark.parametrize("side", ["left", "right"])
def test_filters_of_a_frequency_span_cosine_and_sine(shifted, side):
    """Fourier coefficients of all its factors, as points of the plane, lie on no line."""
    shape, model, _ = shifted
    filters = getattr(model, f"{side}_factors_").reshape(-1, *shape)
    peaks = [peak(image) for image in filters]
    ratios = []
    for row, column in set(peaks):
        if (2 * row) % 6 == 0 and (2 * column) % 6 == 0:
            continue  # its own opposite has no sine
        chosen = [place == (row, column) for place in peaks]
        waves = np.fft.rfft2(filters[np.array(chosen)])[:, row, column]
        values = np.linalg.svd(np.column_stack([waves.real, waves.imag]), compute_uv=False)
        ratios.append(values[1] / values[0] if len(values) > 1 else 0.0)
    assert len(ratios) >= 10
    assert np.mean(np.array(ratios) >= 0.3) >= 0.8


def test_codes_name_the_shift_and_transfer_it(shifted):
    """By the nearest code; and the code of one pair, applied to another image."""
    _, model, (X, shifts) = shifted
    codes, label = model.transform(X), 3 * shifts[:, 0] + shifts[:, 1]
    gaps = ((codes[:300, None] - codes[None, 300:]) ** 2).sum(axis=2)
    assert (label[300:][gaps.argmin(axis=1)] == label[:300]).mean() >= 0.99
    found = []
    for value in range(-4, 5):
        rows = np.flatnonzero(label == value)
        analogies = model.apply(X[rows[1:], :36], codes[rows[:-1]])
        truth = X[rows[1:], 36:]
        found += [np.corrcoef(a, b)[0, 1] for a, b in zip(analogies, truth, strict=True)]
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_free_energies_sum_over_the_energies_in_the_units_of_the_rows(likelihood, beta):
    X = make_rows(60) if likelihood == "bernoulli" else 10.0 * make_rows(60)
    settings = {"likelihood": likelihood, "conditional": False, "log_partition": None}
    model = GatedBM(3, max_epochs=2, random_state=0, **settings).fit(X)
    energies = [model.energy(X, np.tile(z, (len(X), 1))) for z in product([0.0, 1.0], repeat=3)]
    expected = -logsumexp(-beta * np.array(energies), axis=0) / beta
    np.testing.assert_allclose(model.free_energy(X, beta), expected, rtol=1e-6)


def test_a_conditional_model_has_one_temperature():
    model = GatedBM(2, max_epochs=1, random_state=0).fit(make_rows(60))
    with pytest.raises(ValueError, match=r"beta=0.5: -log p.* fit with conditional=False"):
        model.free_energy(make_rows(5), beta=0.5)


def test_given_views_of_unequal_width_go_on_learning():
    X = np.random.default_rng(0).normal(size=(40, 8))
    model = GatedBM.from_parameters(
        components=np.zeros((2, 3, 5)), intercept_right=np.zeros(5), intercept_hidden=np.zeros(2)
    )
    assert model.partial_fit(X).components_.shape == (2, 3, 5)


def test_joint_weights_without_a_density_are_refused():
    def joint(weights):
        return GatedBM.from_parameters(
            components=np.array(weights)[:, None, None],
            intercept_left=[0.0],
            intercept_right=[0.0],
            intercept_hidden=np.zeros(len(weights)),
            conditional=False,
        )

    for weights in ([2.0], [0.6, 0.6], [1.0]):
        with pytest.raises(ValueError, match=r"conditional=False has no density"):
            joint(weights)
    many = np.tile([0.1, -0.1], 6)  # of so many units, not all states are looked at
    assert len(joint(many).intercept_hidden_) == 12
    # The norms add up to more than 1, but no state of the hidden units does.
    assert np.isfinite(joint([0.6, -0.6]).estimate_log_partition("exact").log_partition_)
