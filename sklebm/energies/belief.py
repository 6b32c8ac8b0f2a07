r"""p(x, h_1, ..., h_L) = p(x | h_1) ... p(h_{L-2} | h_{L-1}) p(h_{L-1}, h_L).

A deep belief network: the two top layers are a restricted Boltzmann machine, each layer below is
drawn given the one above it, p(h_{l-1} | h_l) with the fields b + W' h_l. Upwards, q(h_l | h_{l-1})
has independent units with the fields c + R h_{l-1}; in a greedy stack R = W. With F the free energy
of the top machine and Z its normaliser,

    log p(x) + log Z = log E_q exp(w(x, h)) >= E_q w(x, h),
    w(x, h) = sum_l [log p(h_{l-1} | h_l) - log q(h_l | h_{l-1})] - F(h_{L-1}),    h_0 = x,

with equality where q is the posterior.

G. E. Hinton, S. Osindero and Y.-W. Teh, "A fast learning algorithm for deep belief nets", Neural
Computation 18(7), 2006; R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep
belief networks", ICML 2008.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sklebm.energies.bilinear import BilinearEnergy
from sklebm.energies.units import Units


class DirectedLayer(nn.Module):
    """p(u | h): units u, independent given the layer above, with the fields b + W' h.

    Parameters
    ----------
    units : Units
        The units, with their biases b.
    weights : Tensor of shape (n_above, n_units)
        The weights W.
    """

    def __init__(self, units: Units, weights: Tensor) -> None:
        super().__init__()
        self.units = units
        self.weights = weights if isinstance(weights, nn.Parameter) else nn.Parameter(weights)

    def field(self, h: Tensor) -> Tensor:
        """Input of the units, (n_rows, n_units). O(n d k)."""
        return torch.addmm(self.units.bias, h, self.weights)

    def mean(self, h: Tensor) -> Tensor:
        """E[u | h], (n_rows, n_units)."""
        return self.units.mean(self.field(h))

    def draw(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of p(u | h) for each row."""
        return self.units.draw(self.mean(h), generator)

    def log_density(self, u: Tensor, h: Tensor) -> Tensor:
        """log p(u | h) of each row, (n_rows,)."""
        return log_conditional(self.units, u, self.field(h))

    def log_densities(self, u: Tensor, h: Tensor) -> Tensor:
        """log p(u_i | h_j) of all pairs, (n_rows, n_states)."""
        field = self.field(h)
        sent = self.units.statistic(u) @ (field - self.units.bias).T
        total: Tensor = sent - self.units.energy(u)[:, None] - self.units.cumulant(field).sum(1)
        return total


def log_conditional(units: Units, u: Tensor, field: Tensor) -> Tensor:
    """Log of the density of states u of independent units given their fields, (n_rows,)."""
    sent = (units.statistic(u) * (field - units.bias)).sum(dim=1)
    return sent - units.energy(u) - units.cumulant(field).sum(dim=1)


class DeepBeliefEnergy(nn.Module):
    """Directed layers below a restricted Boltzmann machine, and machines that infer upwards.

    Parameters
    ----------
    machines : sequence of BilinearEnergy
        From the bottom on: the hidden units of one are the visible units of the next. All but the
        last only give q; the last is the top machine.
    generative : sequence of DirectedLayer or None, default=None
        The layers below the top machine, p; None takes the parameters of the machines.
    """

    def __init__(
        self,
        machines: Sequence[BilinearEnergy],
        generative: Sequence[DirectedLayer] | None = None,
    ) -> None:
        super().__init__()
        for below, above in itertools.pairwise(machines):
            if len(below.hidden.bias) != len(above.visible.bias):
                raise ValueError(
                    f"A machine with {len(below.hidden.bias)} hidden units stands below one with "
                    f"{len(above.visible.bias)} visible units."
                )
        if generative is None:
            generative = [DirectedLayer(m.visible, m.weights) for m in machines[:-1]]
        self.machines = nn.ModuleList(machines)
        self.generative = nn.ModuleList(generative)

    @property
    def domain(self) -> str:
        """The kind of rows."""
        kind: str = self.machines[0].domain  # type: ignore[assignment]
        return kind

    @property
    def top(self) -> BilinearEnergy:
        """The machine of the two top layers."""
        machine: BilinearEnergy = self.machines[-1]  # type: ignore[assignment]
        return machine

    @property
    def lower(self) -> list[tuple[BilinearEnergy, DirectedLayer]]:
        """q and p of every layer below the top machine, from the bottom up."""
        pairs = zip(list(self.machines)[:-1], self.generative, strict=True)
        return list(pairs)  # type: ignore[arg-type]

    @property
    def widths(self) -> list[int]:
        """Number of hidden units of each layer below the top machine."""
        return [len(machine.hidden.bias) for machine, _ in self.lower]

    # ------------------------------------------------------------------ up and down

    def encode(self, x: Tensor) -> Tensor:
        """Means of the top layer, from the means of each layer below."""
        for machine, _ in self.lower:
            x = machine.hidden_mean(x)
        return self.top.hidden_mean(x)

    def decode(self, z: Tensor) -> Tensor:
        """Means of the rows, from the means of each layer above."""
        u = self.top.visible.mean(self.top.visible_field(z))
        for _, layer in reversed(self.lower):
            u = layer.mean(u)
        return u

    def draw_up(self, x: Tensor, generator: torch.Generator) -> list[Tensor]:
        """x and one draw of q for every layer below the top machine."""
        states = [x]
        for machine, _ in self.lower:
            states.append(machine.draw_hidden(states[-1], generator))
        return states

    def draw_down(self, h: Tensor, generator: torch.Generator) -> list[Tensor]:
        """States h of the top machine's visible units and draws of all layers below them.

        In the order of ``draw_up``: rows first.
        """
        states = [h]
        for _, layer in reversed(self.lower):
            states.append(layer.draw(states[-1], generator))
        return states[::-1]

    # ------------------------------------------------------------------ paths through the layers

    def weigh_states(self, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """w and log q of every row with every one of the given states, (n_rows, n_states) each.

        ``states`` holds the hidden layers below the top machine, concatenated.
        """
        hidden = torch.split(states, self.widths, dim=1)
        machine, layer = self.lower[0]
        field = machine.hidden_field(x)
        up = field @ hidden[0].T - machine.hidden.cumulant(field).sum(dim=1, keepdim=True)
        log_w, log_q = self._above(hidden)
        return layer.log_densities(x, hidden[0]) - up + log_w, up + log_q

    def weigh_draws(self, x: Tensor, uniform: Tensor) -> Tensor:
        """w of one draw of q for every row, made of numbers in (0, 1); (n_rows,).

        ``uniform`` has one number for each hidden unit below the top machine, (n_rows, n_units).
        """
        below, states = x, []
        for (machine, _), part in zip(
            self.lower, torch.split(uniform, self.widths, dim=1), strict=True
        ):
            below = (part < machine.hidden_mean(below)).to(x.dtype)
            states.append(below)
        machine, layer = self.lower[0]
        up = log_conditional(machine.hidden, states[0], machine.hidden_field(x))
        return self._above(states)[0] + layer.log_density(x, states[0]) - up

    def _above(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The part of w that the rows do not enter, and log q of it; (n_states,) each."""
        log_w, log_q = -self.top.free_energy(states[-1]), states[-1].new_zeros(len(states[-1]))
        for (machine, layer), below, above in zip(
            self.lower[1:], states[:-1], states[1:], strict=True
        ):
            up = log_conditional(machine.hidden, above, machine.hidden_field(below))
            log_w = log_w + layer.log_density(below, above) - up
            log_q = log_q + up
        return log_w, log_q
