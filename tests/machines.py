"""Small Boltzmann machines and their naive float64 ground truth, by summing over all states."""

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from sklebm.energies import Bernoulli, BilinearEnergy, Gaussian, GaussianBilinearEnergy


def make_machine(n_visible, n_hidden, scale=1.0, seed=0, dtype=torch.float64):
    """A random machine whose weights are large enough to matter."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return BilinearEnergy(
        Bernoulli(draw(n_visible)), Bernoulli(draw(n_hidden)), draw(n_hidden, n_visible)
    )


def balanced_machine(n_visible, n_hidden, scale=2.0, seed=0):
    """A machine whose units are on half of the time: all it knows lies in their dependence."""
    machine = make_machine(n_visible, n_hidden, scale, seed)
    machine.visible.bias.data = -0.5 * machine.weights.data.sum(dim=0)
    machine.hidden.bias.data = -0.5 * machine.weights.data.sum(dim=1)
    return machine


def parameters(machine):
    """Weights, hidden biases and visible biases as float64 NumPy arrays."""
    tensors = (machine.weights, machine.hidden.bias, machine.visible.bias)
    return [tensor.detach().double().numpy() for tensor in tensors]


def all_states(n_units):
    """Every state of a layer, one a row, by counting in binary."""
    return np.array([[int(bit) for bit in f"{i:0{n_units}b}"] for i in range(2**n_units)], float)


def minus_joint_energy(machine):
    """-E(v, h) of all pairs of states, (2^n_visible, 2^n_hidden)."""
    weights, hidden_bias, visible_bias = parameters(machine)
    v, h = all_states(len(visible_bias)), all_states(len(hidden_bias))
    return (v @ visible_bias)[:, None] + h @ hidden_bias + v @ weights.T @ h.T


def naive_log_partition(machine):
    """log of the sum over all pairs of states."""
    return logsumexp(minus_joint_energy(machine))


def naive_visible_probabilities(machine):
    """p(v) of all visible states."""
    joint = minus_joint_energy(machine)
    return np.exp(logsumexp(joint, axis=1) - logsumexp(joint))


def naive_gradient(machine, rows):
    """Gradient of the mean of -log p over ``rows``: model expectations minus data expectations.

    In the order weights, hidden biases, visible biases.
    """
    weights, hidden_bias, visible_bias = parameters(machine)
    v, h = all_states(len(visible_bias)), all_states(len(hidden_bias))
    joint = minus_joint_energy(machine)
    p = np.exp(joint - logsumexp(joint))
    model = p.T @ v, p.sum(axis=0) @ h, p.sum(axis=1) @ v
    rows = np.asarray(rows, float)
    mean = 1.0 / (1.0 + np.exp(-(hidden_bias + rows @ weights.T)))
    data = mean.T @ rows / len(rows), mean.mean(axis=0), rows.mean(axis=0)
    return [h.T @ model[0] - data[0], model[1] - data[1], model[2] - data[2]]


def exact_rows(machine, n_rows, seed=0):
    """Rows drawn independently from p(v)."""
    rng = np.random.default_rng(seed)
    p = naive_visible_probabilities(machine)
    states = all_states(len(parameters(machine)[2]))
    return states[rng.choice(len(p), size=n_rows, p=p)]


def make_gaussian_machine(n_visible, n_hidden, seed=0, shared=False, scale=1.0):
    """A random machine with Gaussian visible units and learnt variances."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    visible = Gaussian(draw(n_visible), 0.5 * draw(1 if shared else n_visible), True)
    return GaussianBilinearEnergy(visible, Bernoulli(draw(n_hidden)), draw(n_hidden, n_visible))


def mixture(machine):
    """log weights, means and standard deviations of the components, from the completed squares."""
    weights, a, c = (
        p.detach().numpy() for p in (machine.weights, machine.visible.bias, machine.hidden.bias)
    )
    d = len(a)
    deviation = np.exp(0.5 * machine.visible.log_variance.detach().numpy()) * np.ones(d)
    h = all_states(len(c))
    means = a + h @ weights
    log_mass = h @ c + ((means**2 - a**2) / (2 * deviation**2)).sum(axis=1)
    log_mass += np.log(np.sqrt(2 * np.pi) * deviation).sum()
    return log_mass, means, deviation


def naive_log_density(machine, v):
    """log p(v) of each row, summed over the components."""
    log_mass, means, deviation = mixture(machine)
    parts = norm.logpdf(v[:, None], means, deviation).sum(axis=2) + log_mass
    return logsumexp(parts, axis=1) - logsumexp(log_mass)
