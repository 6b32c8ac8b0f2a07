"""Small deep energies in float64 with random numbers, large enough to matter."""

import torch
from torch import nn

from sklebm.energies.deep import DeepEnergy
from sklebm.energies.reference import ReferenceGaussian

ACTIVATIONS = (nn.Tanh, nn.Sigmoid, nn.Softplus, nn.SiLU)


def make_energy(n_features=3, hidden_sizes=(4,), n_components=5, activation=nn.Tanh, seed=0):
    """A random energy; ``hidden_sizes=()`` is the shallow one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layers, width = [], n_features
    for size in (*hidden_sizes, n_components):
        layer = nn.Linear(width, size, dtype=torch.float64)
        layer.weight.data, layer.bias.data = draw(size, width), draw(size)
        layers += [layer, activation()]
        width = size
    factor = torch.tril(0.3 * draw(n_features, n_features)) + torch.eye(n_features)
    return DeepEnergy(
        nn.Sequential(*layers[:-1]),
        draw(n_features),
        torch.tensor(0.2, dtype=torch.float64),
        ReferenceGaussian(draw(n_features), factor),
        torch.tensor(0.7, dtype=torch.float64),
    )


def make_points(n_rows=7, n_features=3, seed=1):
    """Rows in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, n_features, generator=generator, dtype=torch.float64)
