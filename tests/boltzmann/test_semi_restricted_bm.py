"""SemiRestrictedBM: its density as a mixture, its gradients, what it learns, and its structures."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from sklebm import GaussianEnergy, GaussianRBM, SemiRestrictedBM
from sklebm.boltzmann._base import BoltzmannEstimator
from sklebm.boltzmann._precision import made_positive, two_modes
from sklebm.energies import Bernoulli
from sklebm.energies.correlated_gaussian import CorrelatedBilinearEnergy, CorrelatedGaussian
from sklebm.energies.whitened_machine import WhitenedMachine
from sklebm.inference.gibbs_langevin import GibbsLangevin
from sklebm.objectives import (
    Batch,
    ContrastiveDivergence,
    MaximumLikelihood,
    NoiseContrastive,
    PersistentContrastiveDivergence,
    ScoreMatching,
)
from tests.machines import all_states


def parameters(d, k, seed=0):
    """A precision with strong couplings, and weights and biases of the size of the noise."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return {
        "components_": rng.normal(size=(k, d)),
        "intercept_visible_": rng.normal(size=d),
        "intercept_hidden_": rng.normal(size=k) - 1.0,
        "precision_": root @ root.T / d + 0.3 * np.eye(d),
    }


def of(p, kind=SemiRestrictedBM):
    return kind.from_parameters(**{name.rstrip("_"): value for name, value in p.items()})


def given(d, k, seed=0):
    return of(parameters(d, k, seed))


def mixture(p):
    """log weights (with log Z), means and covariance of the 2^k components, state by state."""
    h = all_states(len(p["components_"]))
    a, L = p["intercept_visible_"], p["precision_"]
    means = a + h @ p["components_"]
    log_mass = h @ p["intercept_hidden_"]
    log_mass = log_mass + 0.5 * (((means @ L) * means).sum(axis=1) - a @ L @ a)
    log_mass = log_mass + 0.5 * (len(a) * np.log(2 * np.pi) - np.linalg.slogdet(L)[1])
    return log_mass, means, np.linalg.inv(L)


def rows_of(p, n_rows, seed):
    """Exact draws from the mixture."""
    log_mass, means, covariance = mixture(p)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(means), n_rows, p=np.exp(log_mass - logsumexp(log_mass)))
    return means[chosen] + rng.multivariate_normal(np.zeros(len(covariance)), covariance, n_rows)


def truth(p, X):
    log_mass, means, _ = mixture(p)
    L = p["precision_"]
    gaps = X[:, None] - means
    peak = 0.5 * (np.linalg.slogdet(L)[1] - X.shape[1] * np.log(2 * np.pi))
    parts = log_mass - logsumexp(log_mass) + peak - 0.5 * ((gaps @ L) * gaps).sum(axis=2)
    return logsumexp(parts, axis=1)


def clusters(n_rows, seed):
    """Four clusters with one covariance: two hidden units, each on in half of the rows."""
    p = parameters(5, 2, seed=3)
    # Of weights that L makes orthogonal, the bits are independent.
    root = np.linalg.cholesky(p["precision_"])
    axes = np.linalg.qr(p["components_"].T)[0].T @ np.linalg.inv(root)
    p["components_"] = 6.0 * axes
    L, W = p["precision_"], p["components_"]
    p["intercept_hidden_"] = -0.5 * ((W @ L) * W).sum(axis=1) - W @ L @ p["intercept_visible_"]
    return rows_of(p, n_rows, seed), p


def bumps(n_rows, seed):
    """Rare bumps under correlated noise: heavy tails."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_rows, 6)) @ (np.eye(6) + 0.8 * np.eye(6, k=1))
    return noise + (rng.random((n_rows, 3)) < 0.1) @ np.kron(np.eye(3), [6.0, -6.0])


@pytest.mark.parametrize(("d", "k"), [(3, 1), (4, 6), (5, 12)])
def test_a_mixture_of_gaussians_with_one_covariance(d, k):
    model, p = given(d, k).estimate_log_partition("exact"), parameters(d, k)
    log_mass, means, covariance = mixture(p)
    assert model.log_partition_ == pytest.approx(logsumexp(log_mass), rel=1e-12, abs=1e-10)
    X = rows_of(p, 40, 0)
    assert model.score_samples(X) == pytest.approx(truth(p, X), rel=1e-10, abs=1e-10)
    # Mean and covariance, from the masses of the hidden states according to the model's energy.
    h = all_states(k)
    energies = model.energy(means, h)  # at the mean of each component, where its density peaks
    peak = -0.5 * (d * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
    masses = np.exp(-energies - peak - model.log_partition_)
    assert masses.sum() == pytest.approx(1.0, abs=1e-10)
    decoded = model.inverse_transform(h)
    mean = masses @ decoded
    spread = (decoded - mean).T @ (masses[:, None] * (decoded - mean))
    found = spread + np.linalg.inv(model.precision_)
    w = np.exp(log_mass - logsumexp(log_mass))
    gaps = means - w @ means
    assert mean == pytest.approx(w @ means, abs=1e-10)
    assert found == pytest.approx(gaps.T @ (w[:, None] * gaps) + covariance, rel=1e-10, abs=1e-10)


def test_annealing_brackets_the_sum():
    model = given(4, 6, seed=1).estimate_log_partition("exact")
    exact = model.log_partition_
    for method in ("ais", "bridge"):
        model.estimate_log_partition(method, random_state=0)
        low, high = model.log_partition_interval_
        assert low <= exact <= high
        assert high - low < 0.5
    assert model.check_density(random_state=0).passed


def test_white_noise_gives_the_scores_of_gaussian_rbm():
    p = parameters(4, 5)
    p["precision_"] = np.eye(4) / 0.7**2
    model = of(p).estimate_log_partition("exact")
    del p["precision_"]
    plain = of({**p, "log_variance_": np.log([0.7**2])}, GaussianRBM)
    plain.estimate_log_partition("exact")
    X = np.random.default_rng(0).normal(size=(50, 4)) * 3
    assert model.score_samples(X) == pytest.approx(plain.score_samples(X), rel=1e-10, abs=1e-10)
    assert model.transform(X) == pytest.approx(plain.transform(X), abs=1e-10)


def test_chains_leave_the_mean_and_covariance_in_place():
    p = parameters(3, 2)
    model = given(3, 2)
    X = model.gibbs(rows_of(p, 40_000, 0), n_steps=3, random_state=0)
    log_mass, means, covariance = mixture(p)
    w = np.exp(log_mass - logsumexp(log_mass))
    gaps = means - w @ means
    covariance = gaps.T @ (w[:, None] * gaps) + covariance
    # Five standard errors of means and, for nearly normal rows, of covariances.
    size = np.sqrt(covariance.diagonal())
    assert np.abs((X.mean(axis=0) - w @ means) / size).max() < 5 / 200
    error = (np.cov(X.T) - covariance) / np.outer(size, size)
    assert np.abs(error).max() < 5 * np.sqrt(2) / 200


def test_clamped_chains_draw_from_the_conditional_mixture():
    """Of two patterns of known features at once; the moments of the others are known."""
    p, n_chains = parameters(3, 2), 20_000
    known = np.full((2 * n_chains, 3), np.nan)
    known[::2, 1], known[1::2, [0, 2]] = 0.5, [-0.3, 1.0]
    drawn = of(p).sample(len(known), n_steps=100, clamped=known, random_state=0)
    log_mass, means, covariance = mixture(p)
    for first, k in ((0, [1]), (1, [0, 2])):
        u = [i for i in range(3) if i not in k]
        value = known[first, k]
        inverse = np.linalg.inv(covariance[np.ix_(k, k)])
        gaps = value - means[:, k]
        log_w = log_mass - 0.5 * ((gaps @ inverse) * gaps).sum(axis=1)
        w = np.exp(log_w - logsumexp(log_w))
        carried = covariance[np.ix_(u, k)] @ inverse
        centres = means[:, u] + gaps @ carried.T
        mean = w @ centres
        apart = centres - mean
        expected = covariance[np.ix_(u, u)] - carried @ covariance[np.ix_(k, u)]
        expected = expected + apart.T @ (w[:, None] * apart)
        found = drawn[first::2]
        assert (found[:, k] == value.astype(np.float32)).all()
        # Five standard errors of means and, for nearly normal rows, of covariances.
        size = np.sqrt(expected.diagonal())
        assert np.abs((found[:, u].mean(axis=0) - mean) / size).max() < 5 / np.sqrt(n_chains)
        error = (np.cov(found[:, u].T) - expected) / np.outer(size, size)
        assert np.abs(error).max() < 5 * np.sqrt(2 / n_chains)


def energy_of(p):
    held = {name: torch.from_numpy(value.copy()) for name, value in p.items()}
    units = CorrelatedGaussian(held["intercept_visible_"], held["precision_"])
    return CorrelatedBilinearEnergy(
        units, Bernoulli(held["intercept_hidden_"]), held["components_"]
    )


def test_score_matching_in_closed_form_equals_automatic_derivatives():
    energy = energy_of(parameters(4, 5))
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    slope = torch.autograd.grad(energy.free_energy(x).sum(), x, create_graph=True)[0]
    second = [
        torch.autograd.grad(slope[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(4)
    ]
    loss = (0.5 * slope.square().sum(dim=1) - torch.stack(second).sum(dim=0)).mean()
    ours, _ = ScoreMatching().loss(energy, Batch(x.detach()), {}, torch.Generator())
    assert float(ours.detach()) == pytest.approx(float(loss.detach()), rel=1e-12)
    expected = torch.autograd.grad(loss, list(energy.parameters()))
    found = torch.autograd.grad(ours, list(energy.parameters()))
    for one, other in zip(found, expected, strict=True):
        # L enters the energy as a quadratic form: only its symmetric part has a meaning.
        if one.shape == (4, 4):
            one, other = one + one.T, other + other.T
        assert one.numpy() == pytest.approx(other.numpy(), rel=1e-9, abs=1e-9)


def test_gradients_of_chains_equal_automatic_derivatives():
    energy = energy_of(parameters(4, 5))
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    signs = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)
    value = signs @ energy.free_energy(x)
    expected = dict(
        zip(energy.parameters(), torch.autograd.grad(value, list(energy.parameters())), strict=True)
    )
    with torch.no_grad():
        field = energy.hidden_field(x)
        _, gradients = energy.free_energy_gradients(x, signs, field, torch.sigmoid(field))
    assert len(gradients) == 4
    for parameter, gradient in gradients:
        if parameter is energy.weights:
            gradient = (gradient.left * gradient.weights[:, None]).T @ gradient.right
        other = expected[parameter]
        if parameter is energy.visible.precision:
            other = 0.5 * (other + other.T)
        assert gradient.numpy() == pytest.approx(other.numpy(), rel=1e-9, abs=1e-9)


def test_noise_has_the_mean_and_the_covariance_of_the_rows():
    X = torch.from_numpy(rows_of(parameters(3, 2), 500, 0))
    energy, objective = energy_of(parameters(3, 2, seed=1)), NoiseContrastive()
    state = objective.init_state(energy, 100, torch.Generator())
    for x in (X[:100], X[100:]):  # chunks of different sizes
        _, state = objective.loss(energy, Batch(x), state, torch.Generator().manual_seed(0))
    noise = energy.visible.fitted(state["count"], state["mean"], state["square"])
    assert noise.bias.detach().numpy() == pytest.approx(X.numpy().mean(axis=0), rel=1e-9)
    broad = np.linalg.inv(parameters(3, 2, seed=1)["precision_"])
    expected = (500 * np.cov(X.numpy().T, bias=True) + 10 * broad) / 510
    found = np.linalg.inv(noise.precision.detach().numpy())
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_optimum_of_noise_contrastive_estimation_is_the_truth():
    """There the slope vanishes, up to noise, and log Z is learnt; beside it, it does not."""
    p, n = parameters(3, 2), 4000
    log_z = logsumexp(mixture(p)[0])
    largest = []
    for q in (p, {**p, "components_": 1.3 * p["components_"]}):
        energy, objective, slopes = energy_of(q), NoiseContrastive(n_noise=2), []
        generator = torch.Generator().manual_seed(0)
        state = objective.init_state(energy, n, generator)
        state["log_partition"] = torch.tensor(log_z + 0.5)
        for seed in range(40):
            x = torch.from_numpy(rows_of(p, n, seed))
            loss, state = objective.loss(energy, Batch(x), state, generator)
            if seed == 19:
                # 0.9^20 of a gap of 0.5 is left, and noise of some 1 / (10 n)^1/2.
                assert q is not p or float(state["log_partition"]) == pytest.approx(log_z, abs=0.1)
                state["log_partition"] = torch.tensor(log_z)
            if seed >= 20:
                of = torch.autograd.grad(loss, list(energy.parameters()))
                slopes.append(torch.cat([g.flatten() for g in of]).numpy())
        errors = np.std(slopes, axis=0, ddof=1) / np.sqrt(len(slopes))
        largest.append(np.abs(np.mean(slopes, axis=0) / errors).max())
    # Student's t of 19 degrees of freedom exceeds 6 in one of 10^5; there are 20 entries.
    assert largest[0] < 6
    assert largest[1] > 9


def test_the_exact_gradient_equals_finite_differences():
    p = parameters(3, 3)
    X = rows_of(p, 30, 0)
    energy = energy_of({**p, "precision_": p["precision_"] + 0.2 * np.eye(3)})
    batch = Batch(torch.from_numpy(X))
    loss, _ = MaximumLikelihood().loss(energy, batch, {}, torch.Generator())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(
        -truth({**p, "precision_": p["precision_"] + 0.2 * np.eye(3)}, X).mean(), rel=1e-10
    )
    for name, gradient in (
        ("components_", energy.weights.grad),
        ("precision_", energy.visible.precision.grad),
    ):
        step, values = np.zeros_like(p[name]), []
        step[0, 1] = 1e-5
        step = step + step.T if name == "precision_" else step
        for sign in (1, -1):
            moved = {**p, "precision_": p["precision_"] + 0.2 * np.eye(3)}
            moved[name] = moved[name] + sign * step
            values.append(-truth(moved, X).mean())
        # Central differences of 1e-5 leave an error of some 1e-9.
        slope = (values[0] - values[1]) / 2e-5
        assert float((gradient.numpy() * step).sum() / 1e-5) == pytest.approx(slope, abs=1e-7)


def test_finds_clusters_with_one_covariance():
    """By L-BFGS from the best of several starts, which a Gaussian start never leads to."""
    (train, p), (test, _) = clusters(1000, 0), clusters(2000, 1)
    best = truth(p, test).mean()
    model = SemiRestrictedBM(2, max_epochs=5, random_state=0).fit(train)
    gaussian = GaussianEnergy().fit(train).score_samples(test).mean()
    start = SemiRestrictedBM(2, learning_rate=1e-12, max_epochs=1, random_state=0).fit(train)
    assert model.score(test) > gaussian + 0.8 * (best - gaussian)
    assert model.score(test) > start.score(test) + 0.005
    # 27 parameters learnt from 1000 rows cost some 27 / 2000 nats.
    assert model.score(test) > best - 0.05
    # The precision of 1000 rows has relative standard errors of sqrt(2 / 1000) = .045.
    found, w = model.components_, p["components_"]
    overlap = np.abs(found @ model.precision_ @ w.T) / 36
    assert np.sort(overlap, axis=1)[:, 1] == pytest.approx([1.0, 1.0], abs=0.1)


def test_directions_with_two_modes_need_not_have_a_variance_of_one():
    """As few rows and nearly equal features are whitened only in part: their covariance shrinks."""
    rng = np.random.default_rng(0)
    white = 0.3 * rng.normal(size=(1000, 8))
    # Half of the rows at 1 and half at -1, plus noise, which makes the variance larger than one.
    white[:, 0] += np.where(np.arange(1000) % 2, 1.0, -1.0)
    turned = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    generator = torch.Generator().manual_seed(0)
    axes, lengths, chances = two_modes(torch.from_numpy(white @ turned), 3, generator)
    assert len(axes) == 1
    # The direction is that of a mean of 1000 rows in seven others, up to noise of 0.3 / 1000^1/2.
    assert np.abs(axes.numpy() @ turned[0]) == pytest.approx([1.0], abs=1e-3)
    assert chances.numpy() == pytest.approx([0.5], abs=0.05)
    # The bit leaves at least a twentieth of a variance of one to the noise.
    assert (lengths.square() * chances * (1.0 - chances)).numpy() == pytest.approx([0.95], rel=1e-6)


def test_equal_features_of_few_rows_are_a_bit_and_noise():
    """Far better than the Gaussian of the same rows, which spends the bit on its covariance."""
    rng = np.random.default_rng(0)

    def draw(n_rows):
        return rng.integers(2, size=(n_rows, 1)) * 10.0 + 0.3 * rng.normal(size=(n_rows, 8))

    train, test = draw(40), draw(1000)
    search = {"objective": "maximum_likelihood", "optimizer": "lbfgs"}
    model = SemiRestrictedBM(1, max_epochs=3, random_state=0, **search).fit(train)
    gaussian = GaussianEnergy().fit(train).score_samples(test).mean()
    assert model.score(test) > gaussian + 0.5


@cache
def machine_of_bumps(**settings):
    settings = {"random_state": 0, "max_epochs": 20 if "objective" in settings else 3, **settings}
    return SemiRestrictedBM(3, **settings).fit(bumps(1000, 0))


def held_out_score(**settings):
    """Of heavy tails, in nats a row."""
    return machine_of_bumps(**settings).score(bumps(1000, 1))


def held_out_start(**settings):
    return held_out_score(
        **{"objective": "pcd", **settings, "optimizer": "sgd"}, learning_rate=1e-12, max_epochs=1
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"structure": "diagonal"},
        {"objective": "pcd"},
        {"objective": "score_matching"},
        {"objective": "noise_contrastive"},
        {"objective": "pcd", "structure": "neighbours"},
    ],
)
def test_heavy_tails_beat_the_start_and_the_gaussian(settings):
    assert held_out_score(**settings) > held_out_start(**settings) + 0.05
    if "structure" not in settings:
        gaussian = GaussianEnergy().fit(bumps(1000, 0)).score_samples(bumps(1000, 1)).mean()
        assert held_out_score(**settings) > gaussian + 0.05


def test_noise_contrastive_estimation_learns_log_z_too():
    model = machine_of_bumps(objective="noise_contrastive")
    learnt = float(model.training_state_["objective.log_partition"])
    # Ten batches of 100 rows, with five rows of noise each, leave an error of some 0.03.
    assert learnt == pytest.approx(model.log_partition_, abs=0.1)


def test_plain_steps_of_the_exact_likelihood_follow_line_searches():
    """From one start. It is close to a saddle, which gradients leave slowly: they need steps."""
    exact = {"objective": "maximum_likelihood"}
    start = held_out_start(**exact)
    plain = held_out_score(**exact, optimizer="sgd", learning_rate=1.0, max_epochs=60)
    searched = held_out_score(**exact, optimizer="lbfgs", max_epochs=3)
    assert searched > start + 0.5
    # L-BFGS may end in another optimum than plain steps: at least half of its gain.
    assert plain - start > 0.5 * (searched - start)


def test_white_machines_are_the_same_density():
    """Free energies, log Z and what is exported, for both shapes of the factor."""
    p = parameters(4, 3)
    root = torch.linalg.cholesky(torch.from_numpy(np.cov(rows_of(p, 200, 0).T)))
    x = torch.from_numpy(rows_of(p, 30, 1)).float()
    for diagonal in (False, True):
        if diagonal:
            p = {**p, "precision_": np.diag(p["precision_"].diagonal())}
        machine = energy_of(p)
        white = WhitenedMachine.of(machine, root, diagonal=diagonal)
        rounding = {"rel": 1e-5, "abs": 1e-4}
        expected = machine.free_energy(x.double()).detach().numpy()
        assert white.free_energy(x).detach().numpy() == pytest.approx(expected, **rounding)
        assert float(white.exact_log_partition().detach()) == pytest.approx(
            logsumexp(mixture(p)[0]), **rounding
        )
        back = white.machine()
        for name, tensor in machine.named_parameters():
            found = back.get_parameter(name).detach().numpy()
            assert found == pytest.approx(tensor.detach().numpy(), **rounding)


def test_units_and_offsets_of_the_features_do_not_matter():
    train = bumps(400, 0)
    powers, others = 2.0 ** np.array([-7, 0, 5, 6, -3, 2]), [1e-2, 1.0, 50.0, 1e2, 0.1, 3.0]
    for settings, scale, tolerance in (
        # Powers of two leave all roundings as they are, however far L-BFGS has come: only the
        # scores are rounded once more.
        ({"max_epochs": 1}, powers, 1e-5),
        ({"objective": "pcd", "max_epochs": 5}, powers, 1e-5),
        # Others change them, and paths of L-BFGS part. At the optimum, scores depend on the square
        # of what is left: a few times 1e-4 where line searches stop in single precision.
        ({"max_epochs": 10}, others, 1e-3),
        # Chains stay together unless a draw lies within rounding of its probability.
        ({"objective": "pcd", "max_epochs": 5}, others, 1e-3),
    ):
        model = SemiRestrictedBM(3, random_state=0, **settings).fit(train)
        moved = (train + 128.0) * scale
        other = SemiRestrictedBM(3, random_state=0, **settings).fit(moved)
        score = other.score(moved) + np.log(scale).sum()
        assert score == pytest.approx(model.score(train), abs=tolerance)


def grid_neighbours(height, width):
    place = np.array([(i, j) for i in range(height) for j in range(width)])
    return np.abs(place[:, None] - place).max(axis=2) <= 1


@pytest.mark.parametrize("objective", ["pcd", "score_matching"])
def test_structures_keep_their_zeros_and_stay_positive_definite(objective):
    X = np.random.default_rng(0).normal(size=(300, 6)).cumsum(axis=1)
    mask = np.eye(6, dtype=bool)
    mask[0, 5] = mask[5, 0] = True
    settings = {"objective": objective, "random_state": 0, "max_epochs": 5}
    expected = {
        "full": np.ones((6, 6), dtype=bool),
        "diagonal": np.eye(6, dtype=bool),
        "neighbours": grid_neighbours(2, 3),
        "mask": mask,
    }
    for name, free in expected.items():
        image = {"image_shape": (2, 3)} if name == "neighbours" else {}
        structure = mask if name == "mask" else name
        model = SemiRestrictedBM(3, structure=structure, **image, **settings).fit(X)
        L = model.precision_
        assert (L[~free] == 0).all()
        assert (L[free] != 0).all()
        assert (L == L.T).all()
        assert np.linalg.eigvalsh(L)[0] > 0


def test_steps_too_long_for_a_precision_are_scaled_back():
    indefinite = torch.tensor([[4.0, 30.0, 0.0], [30.0, 9.0, 2.0], [0.0, 2.0, 1.0]])
    back = made_positive(indefinite, indefinite != 0).numpy().astype(float)
    scale = np.array([2.0, 3.0, 1.0])
    # Twice the floor, in units of the diagonal, with float32's rounding of 1e-7.
    assert np.linalg.eigvalsh(back / scale / scale[:, None])[0] == pytest.approx(2e-5, abs=1e-6)
    assert back.diagonal() == pytest.approx(scale**2, rel=1e-6)
    assert back[0, 2] == 0.0
    assert back[0, 1] / back[1, 2] == pytest.approx(15.0, rel=1e-5)
    X = np.random.default_rng(0).normal(size=(200, 2)) @ [[1.0, 0.99], [0.0, 0.1]]
    settings = {"objective": "pcd", "max_epochs": 3, "random_state": 0}
    L = SemiRestrictedBM(1, learning_rate=5.0, **settings).fit(X).precision_.astype(float)
    scale = np.sqrt(L.diagonal())
    # The floor is 1e-5 in units of the diagonal; float32 rounds by 1e-7.
    assert np.linalg.eigvalsh(L / scale / scale[:, None])[0] > 0.9e-5
    with pytest.raises(FloatingPointError, match="learning_rate"):
        SemiRestrictedBM(1, learning_rate=20.0, **settings).fit(X)


def test_warm_start_continues_where_it_was():
    X, _ = clusters(200, 0)
    model = SemiRestrictedBM(2, max_epochs=1, random_state=0, warm_start=True).fit(X)
    before = model.score(X)
    model.set_params(learning_rate=1e-12)
    assert model.fit(X).score(X) == pytest.approx(before, abs=1e-4)  # single precision


@pytest.mark.parametrize("kind", [GaussianRBM, SemiRestrictedBM])
def test_chains_follow_line_searches_that_diverge_if_nobody_asked_for_them(kind, monkeypatch):
    learn, tried = BoltzmannEstimator._fit, []

    def diverging(model, *args, **data):
        tried.append((model.objective, model.optimizer))
        if model.optimizer == "lbfgs":
            raise FloatingPointError("diverged")
        return learn(model, *args, **data)

    monkeypatch.setattr(BoltzmannEstimator, "_fit", diverging)
    X = np.random.default_rng(0).normal(size=(30, 3))
    kind(2, max_epochs=1, random_state=0).fit(X)
    assert tried == [("maximum_likelihood", "lbfgs"), ("pcd", "sgd")]
    for asked in ({}, {"objective": "maximum_likelihood"}):
        with pytest.raises(FloatingPointError, match="diverged"):
            kind(2, optimizer="lbfgs", **asked).fit(X)


def test_what_does_not_fit_is_refused():
    X = np.random.default_rng(0).normal(size=(30, 6))
    exact = {"objective": "maximum_likelihood", "optimizer": "lbfgs"}
    with pytest.raises(ValueError, match="factors L"):
        SemiRestrictedBM(2, structure="neighbours", **exact).fit(X)
    with pytest.raises(ValueError, match="image_shape"):
        SemiRestrictedBM(2, structure="neighbours", image_shape=(2, 2)).fit(X)
    with pytest.raises(ValueError, match="neighbours"):
        SemiRestrictedBM(2, image_shape=(2, 3)).fit(X)
    with pytest.raises(ValueError, match="symmetric"):
        SemiRestrictedBM(2, structure=np.tri(6, dtype=bool)).fit(X)
    with pytest.raises(ValueError, match="boolean"):
        SemiRestrictedBM(2, structure=np.eye(5)).fit(X)
    with pytest.raises(ValueError, match="does not suit"):
        SemiRestrictedBM(2, objective=ContrastiveDivergence()).fit(X)
    with pytest.raises(ValueError, match="does not suit"):
        SemiRestrictedBM(2, objective="cd").fit(X)
    langevin = PersistentContrastiveDivergence(sampler=GibbsLangevin())
    with pytest.raises(ValueError, match="block Gibbs"):
        SemiRestrictedBM(2, objective=langevin).fit(X)
    bad = {**parameters(3, 2), "precision_": np.diag([1.0, 1.0, -1.0])}
    with pytest.raises(ValueError, match="positive definite"):
        of(bad)
    # Beside a feature in other units, too, asymmetric couplings are refused.
    bad["precision_"] = np.array([[1e8, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, -0.5, 1.0]])
    with pytest.raises(ValueError, match="symmetric"):
        of(bad)


def test_clamped_values_far_from_zero_keep_their_digits():
    """In single precision, 1e8 + 3 would be 1e8 or 1e8 + 8."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=500)
    X = np.stack([1e8 + z, z + 0.1 * generator.normal(size=500)], axis=1)
    model = SemiRestrictedBM(1, max_epochs=3, random_state=0).fit(X)
    drawn = model.sample(200, clamped=[1e8 + 3.0, np.nan], n_steps=50, random_state=0)
    assert drawn[:, 1].mean() == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("visible", ["gaussian", "bernoulli"])
def test_more_gibbs_steps_are_those_of_chains_by_default(visible):
    X = np.random.default_rng(0).integers(0, 2, size=(60, 3)).astype(float)
    settings = {"visible": visible, "n_gibbs_steps": 3, "max_epochs": 2, "random_state": 0}
    model = SemiRestrictedBM(2, **settings).fit(X)
    chains = SemiRestrictedBM(2, objective="pcd", **settings).fit(X)
    np.testing.assert_array_equal(model.components_, chains.components_)
