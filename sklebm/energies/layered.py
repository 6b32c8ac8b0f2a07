r"""E(s_0, ..., s_L) = sum_l U_l(s_l) - sum_l s_{l+1}' W_l t(s_l): layers of units in a row.

U_l(s) = -b_l's for units in {0, 1} and t(s) = s; the bottom layer may be Gaussian, with
U_0(v) = |v - a|^2 / 2 s^2 and t(v) = v / s^2. Only neighbouring layers are coupled, so
the even layers are independent of each other given the odd ones, and vice versa: each half can be
drawn, or summed over, at once. With two layers it is a restricted Boltzmann machine, with more a
deep one. With the even layers summed out and the odd ones o fixed,

    log sum_even exp(-E) = -sum_odd U(o) + sum_{l even} Gamma_l(what layer l receives),

and likewise with odd and even exchanged; Gamma is the cumulant of the units.

R. Salakhutdinov and G. Hinton, "Deep Boltzmann machines", AISTATS 2009.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sklebm.energies.binary_states import binary_states
from sklebm.energies.gradients import Gradients, Product
from sklebm.energies.reference import ReferenceUnits
from sklebm.energies.units import Units

#: Maximum number of units whose states are enumerated.
MAX_UNITS = 20


class LayeredEnergy(nn.Module):
    """Layers of units with weights between neighbours.

    Hidden states of all layers are concatenated in one tensor, (n_rows, sum of their widths);
    ``split`` separates them.

    Parameters
    ----------
    layers : sequence of Units
        The layers from the bottom (visible) one on; only the bottom one may be real-valued.
    weights : sequence of Tensor
        W_l of shape (width of layer l + 1, width of layer l).

    Examples
    --------
    >>> import torch
    >>> from sklebm.energies import Bernoulli, LayeredEnergy
    >>> layers = [Bernoulli(torch.zeros(n)) for n in (3, 2, 2)]
    >>> energy = LayeredEnergy(layers, [torch.zeros(2, 3), torch.zeros(2, 2)])
    >>> round(float(energy.exact_log_partition().detach() / torch.log(torch.tensor(2.0))))
    7
    """

    layers: Sequence[Units]
    couplings: Sequence[Tensor]

    def __init__(self, layers: Sequence[Units], weights: Sequence[Tensor]) -> None:
        super().__init__()
        if len(layers) < 2 or len(weights) != len(layers) - 1:
            raise ValueError(
                f"{len(layers)} layers need at least two of them and weights between neighbours, "
                f"but there are {len(weights)} matrices."
            )
        for index, (below, above, matrix) in enumerate(
            zip(layers[:-1], layers[1:], weights, strict=True)
        ):
            if tuple(matrix.shape) != (len(above.bias), len(below.bias)):
                raise ValueError(
                    f"weights[{index}] has shape {tuple(matrix.shape)}, but its layers have "
                    f"{len(above.bias)} units above and {len(below.bias)} below."
                )
            if not above.is_discrete:
                raise ValueError(f"Layer {index + 1} is real-valued; only the bottom one may be.")
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        self.couplings = nn.ParameterList(weights)  # type: ignore[assignment]

    # ------------------------------------------------------------------ what it is made of

    @property
    def domain(self) -> str:
        """The kind of rows: the states of the bottom layer."""
        return self.layers[0].domain

    @property
    def reference(self) -> ReferenceUnits:
        """The visible units without any input: independent, at their biases."""
        return ReferenceUnits(self.layers[0])

    @property
    def widths(self) -> list[int]:
        """Number of units of each layer."""
        return [len(layer.bias) for layer in self.layers]

    def split(self, z: Tensor) -> list[Tensor]:
        """Hidden states (or means) of each layer from the first hidden one on."""
        return list(torch.split(z, self.widths[1:], dim=1))

    # ------------------------------------------------------------------ conditionals

    def field(self, index: int, below: Tensor | None, above: Tensor | None) -> Tensor:
        """Input of a layer from its neighbours' states, (n_rows, width)."""
        total: Tensor = self.layers[index].bias
        if below is not None:
            sent = self.layers[index - 1].statistic(below)
            total = torch.addmm(total, sent, self.couplings[index - 1].T)
        if above is not None:
            total = torch.addmm(total, above, self.couplings[index])
        return total

    def fields(self, states: Sequence[Tensor], parity: int) -> list[Tensor]:
        """Input of each even (0) or odd (1) layer; ``states`` holds all layers."""
        last = len(self.layers) - 1
        return [
            self.field(
                index,
                states[index - 1] if index else None,
                states[index + 1] if index < last else None,
            )
            for index in range(parity, last + 1, 2)
        ]

    def draw_half(
        self, states: Sequence[Tensor], parity: int, generator: torch.Generator
    ) -> list[Tensor]:
        """All layers, with the even (0) or odd (1) ones redrawn given the others."""
        new = list(states)
        places = range(parity, len(self.layers), 2)
        for index, received in zip(places, self.fields(states, parity), strict=True):
            units = self.layers[index]
            new[index] = units.draw(units.mean(received), generator)
        return new

    def start(self, v: Tensor, generator: torch.Generator) -> list[Tensor]:
        """All layers: rows v, other even layers without input, and the odd layers given these."""
        n_rows, states = len(v), [v]
        for units in list(self.layers)[1:]:
            mean = units.mean(units.bias).expand(n_rows, -1).contiguous()
            states.append(units.draw(mean, generator))
        return self.draw_half(states, 1, generator)

    def draw_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """The odd layers given the even ones, concatenated.

        ``v`` holds the even layers concatenated, or only the rows, to which the other even layers
        are added without input.
        """
        if v.shape[1] == self.widths[0] < sum(self.widths[::2]):
            return torch.cat(self.start(v, generator)[1::2], dim=1)
        return torch.cat(self.draw_half(self._woven(v, 0), 1, generator)[1::2], dim=1)

    def draw_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """The even layers given the odd ones, concatenated; rows come first."""
        return torch.cat(self.draw_half(self._woven(h, 1), 0, generator)[0::2], dim=1)

    def with_odd_means(self, even: Tensor) -> list[Tensor]:
        """All layers: the given even ones, concatenated, and the means of the odd ones."""
        states = self._woven(even, 0)
        for index, received in zip(range(1, len(states), 2), self.fields(states, 1), strict=True):
            states[index] = self.layers[index].mean(received)
        return states

    def _woven(self, half: Tensor, parity: int) -> list[Tensor]:
        """A list of all layers with one half filled in and the other empty."""
        parts = iter(torch.split(half, self.widths[parity::2], dim=1))
        empty = half[:, :0]
        return [next(parts) if i % 2 == parity else empty for i in range(len(self.layers))]

    # ------------------------------------------------------------------ energies

    def energy(self, v: Tensor, z: Tensor) -> Tensor:
        """E(v, z) with the hidden layers concatenated, shape (n_rows,). O(n sum of d_l d_l+1)."""
        states = [v, *self.split(z)]
        total = torch.stack(
            [layer.energy(s) for layer, s in zip(self.layers, states, strict=True)]
        ).sum(dim=0)
        for index, matrix in enumerate(self.couplings):
            sent = self.layers[index].statistic(states[index])
            total = total - ((states[index + 1] @ matrix) * sent).sum(dim=1)
        return total

    def energy_gradients(self, states: Sequence[Tensor], signs: Tensor) -> tuple[Tensor, Gradients]:
        """``signs @ E(states)`` and its gradients, for layers of bits or of their means.

        The gradient by W_l is the product -s_{l+1}' diag(signs) s_l of the layers it joins.
        """
        value = signs @ self.energy(states[0], torch.cat(list(states[1:]), dim=1))
        gradients: Gradients = [
            (layer.bias, -(signs @ layer.bias_gradient(s)))
            for layer, s in zip(self.layers, states, strict=True)
        ]
        for matrix, below, above in zip(self.couplings, states[:-1], states[1:], strict=True):
            gradients.append((matrix, Product(above, below, -signs)))
        return value, gradients

    def summed_half(self, states: Sequence[Tensor], parity: int) -> Tensor:
        """log sum over the layers at ``parity`` of exp(-E), given the others; (n_rows,)."""
        held = range(1 - parity, len(self.layers), 2)
        total = -torch.stack([self.layers[i].energy(states[i]) for i in held]).sum(dim=0)
        places = range(parity, len(self.layers), 2)
        for index, received in zip(places, self.fields(states, parity), strict=True):
            total = total + self.layers[index].cumulant(received).sum(dim=1)
        return total

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_z exp(-E(v, z)), shape (n_rows,).

        Odd layers are summed in closed form, and the states of hidden even layers are enumerated:
        none for two layers, the last one for three. O(n 2^m) for m such units.

        Raises
        ------
        ValueError
            If there are more than ``MAX_UNITS`` of these.
        """
        widths = self.widths[2::2]
        parts = [self._minus_free_energy(v, states) for states in self._listed(widths)]
        total: Tensor = -torch.logsumexp(torch.cat(parts, dim=1), dim=1)
        return total

    def _minus_free_energy(self, v: Tensor, upper: Tensor) -> Tensor:
        """log sum over odd layers for every row and every state of the upper even ones."""
        # What a row sends to the first hidden layer is the same for all states: copies of every row
        # for every state would fill gigabytes.
        empty = upper.new_zeros(len(upper), self.widths[0])
        states = self._woven(torch.cat([empty, upper], dim=1), 0)
        of_states, *further = self.fields(states, 1)
        of_rows = self.layers[0].statistic(v) @ self.couplings[0].T
        total = self.layers[1].cumulant(of_rows.unsqueeze(1) + of_states).sum(dim=2)
        for index, received in zip(range(3, len(states), 2), further, strict=True):
            total = total + self.layers[index].cumulant(received).sum(dim=1)
        for index in range(2, len(states), 2):
            total = total - self.layers[index].energy(states[index])
        return total - self.layers[0].energy(v).unsqueeze(1)

    def exact_log_partition(self) -> Tensor:
        """log Z, by enumerating the states of the half with fewer units; a differentiable scalar.

        Raises
        ------
        ValueError
            If that half has more than ``MAX_UNITS`` units.
        """
        odd, even = self.widths[1::2], self.widths[0::2]
        lists_even = self.layers[0].is_discrete and sum(even) < sum(odd)
        parity, widths = (0, even) if lists_even else (1, odd)
        parts = [
            self.summed_half(self._woven(states, parity), 1 - parity)
            for states in self._listed(widths)
        ]
        return torch.logsumexp(torch.cat(parts), dim=0)

    def _listed(self, widths: Sequence[int]) -> Iterator[Tensor]:
        """All states of layers of these widths, concatenated, in blocks."""
        n_units, like = sum(widths), self.couplings[0]
        if n_units > MAX_UNITS:
            raise ValueError(
                f"The exact sum runs over 2^{n_units} states, more than 2^{MAX_UNITS}: use a bound "
                "(mean_field) or an estimate by annealed importance sampling."
            )
        return binary_states(n_units, like)

    # ------------------------------------------------------------------ mean field

    def mean_field(self, v: Tensor, n_steps: int = 50, tol: float = 1e-6) -> Tensor:
        """Means m of independent hidden units that locally maximise the bound on log p(v).

        Every step sets the odd layers, then the even ones, to the best means given the others, so
        that ``variational_free_energy`` falls to a local minimum. Exact for two
        layers. Returns (n_rows, sum of hidden widths), with a graph through the last step only.

        Parameters
        ----------
        v : Tensor of shape (n_rows, d)
            The rows.
        n_steps : int, default=50
            Maximum number of steps.
        tol : float, default=1e-6
            A row's steps end when none of its means changes by more than this.
        """
        # What the rows send to the first hidden layer is the same in every step.
        sent = self.field(1, v, None)
        with torch.no_grad():
            states = [v, self.layers[1].mean(sent)]
            for index in range(2, len(self.layers)):
                states.append(self.layers[index].mean(self.field(index, states[-1], None)))
            # Each row by itself: where others stop must not change its means.
            moving = torch.arange(len(v), device=v.device)
            for _ in range(n_steps if len(self.layers) > 2 else 0):
                before = [s[moving] for s in states]
                after = self._settled(before, sent[moving])
                gap = torch.stack(
                    [(a - b).abs().amax(dim=1) for a, b in zip(after[1:], before[1:], strict=True)]
                )
                for s, new in zip(states[1:], after[1:], strict=True):
                    s[moving] = new
                moving = moving[gap.amax(dim=0) > tol]
                if not len(moving):
                    break
        return torch.cat(self._settled(states, sent)[1:], dim=1)

    def _settled(self, states: Sequence[Tensor], sent: Tensor) -> list[Tensor]:
        """One step of ``mean_field``; ``sent`` is what the rows send to the first hidden layer."""
        new, top = list(states), len(self.layers) - 1
        for index in (*range(1, top + 1, 2), *range(2, top + 1, 2)):
            above = new[index + 1] if index < top else None
            if index > 1:
                received = self.field(index, new[index - 1], above)
            else:
                received = sent if above is None else torch.addmm(sent, above, self.couplings[1])
            new[index] = self.layers[index].mean(received)
        return new

    def variational_free_energy(self, v: Tensor, mean: Tensor) -> Tensor:
        """E(v, m) minus the entropy of independent bits with means m, at least F(v); (n_rows,)."""
        entropy = torch.special.entr(mean) + torch.special.entr(1.0 - mean)
        value: Tensor = self.energy(v, mean) - entropy.sum(dim=1)
        return value

    def hidden_mean(self, v: Tensor) -> Tensor:
        """Means of the hidden units given rows: exact for two layers, else ``mean_field``."""
        return self.mean_field(v)
