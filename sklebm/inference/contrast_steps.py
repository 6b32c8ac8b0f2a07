r"""Compiled updates of contrastive divergence for machines of bits, many to a call.

An update of W, b, c on rows x_i with the states v_j of chains follows

    g = sum_i w_i dF(x_i) - sum_j u_j dF(v_j),    F(x) = -b'x - sum_k log(1 + exp(c_k + w_k'x)),

with the mean over the rows and over the chains as weights w and u, centred as in
``sklebm.training.centring``. For a small machine a step of torch calls costs several times its
arithmetic; here one call runs many steps on buffers that are allocated once. The sums, their
order of random numbers and the results are those of the torch path, up to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sklebm.inference._compiled import REORDER, compiled

# exp(x) = 2^n exp(r) with |r| <= log(2) / 2 and a polynomial for exp(r), as in the Cephes library:
# relative error 2e-7. Written out so that the loop vectorises, which calls of exp do not.
_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C0, _C1 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3)
_C2, _C3 = np.float32(8.3334519073e-3), np.float32(4.1665795894e-2)
_C4, _C5 = np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_LARGEST = np.float32(87.0)
_BIAS, _SHIFT = np.int32(127), np.int32(23)


@compiled()
def sigmoid(x: Any, out: Any, power: Any) -> None:
    """1 / (1 + exp(-x)) of flat float32 arrays; ``power`` is scratch of dtype int32."""
    for i in range(len(x)):
        a = min(max(-x[i], -_LARGEST), _LARGEST)
        n = np.floor(a * _LOG2_E + _HALF)
        r = (a - n * _LN2_HIGH) - n * _LN2_LOW
        p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
        out[i] = p * r * r + r + _ONE
        power[i] = (np.int32(n) + _BIAS) << _SHIFT
    scale = power.view(np.float32)
    for i in range(len(x)):
        out[i] = _ONE / (_ONE + out[i] * scale[i])


@compiled()
def _means(states: Any, weights: Any, bias: Any, field: Any, mean: Any, power: Any) -> None:
    """Input and means of units from the states of the other layer."""
    np.dot(states, weights, field)
    for i in range(len(field)):
        for j in range(len(bias)):
            field[i, j] += bias[j]
    sigmoid(field.reshape(-1), mean.reshape(-1), power)


@compiled()
def _draw(mean: Any, uniform: Any, out: Any) -> None:
    """Bits with the given means, one for each uniform number."""
    place = 0
    for i in range(len(out)):
        for j in range(out.shape[1]):
            out[i, j] = _ONE if uniform[place] < mean[i, j] else np.float32(0.0)
            place += 1


@compiled(fastmath=REORDER)
def _weighted_products(shares: Any, a: Any, b: Any) -> float:
    """sum_i shares_i a_i'b_i over rows."""
    total = 0.0
    for i in range(len(a)):
        product = np.float32(0.0)
        for j in range(a.shape[1]):
            product += a[i, j] * b[i, j]
        total += shares[i] * product
    return total


@compiled()
def _subtract(a: Any, b: Any, rate: Any) -> None:
    """Subtract a multiple of b from a in place, flat."""
    for i in range(len(a)):
        a[i] -= rate * b[i]


@compiled()
def contrast_steps(
    rows: Any,
    batch_size: int,
    weights: Any,
    visible_bias: Any,
    hidden_bias: Any,
    visible: Any,
    hidden: Any,
    is_persistent: bool,
    n_gibbs: int,
    uniform: Any,
    visible_offset: Any,
    hidden_offset: Any,
    is_centred: bool,
    n_before: int,
    every: int,
    follow: float,
    rates: Any,
    full_batch: int,
) -> float:
    """Take one update per batch of ``rows`` in place; return the sum of losses times rows.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, d)
        Training rows, float32 like all arrays but ``rates``, divided into batches of
        ``batch_size``; the last may be shorter.
    weights, visible_bias, hidden_bias : ndarray
        The parameters, (k, d), (d,) and (k,).
    visible, hidden : ndarray of shape (n_chains, d) and (n_chains, k)
        Chains, moved in place; without persistent chains, scratch with as many rows as a batch.
    is_persistent : bool
        Whether chains go on from where they are; otherwise they start at the batch.
    n_gibbs : int
        Steps of a chain per update.
    uniform : ndarray of shape (n_numbers,)
        Uniform random numbers in the order in which the torch path draws them.
    visible_offset, hidden_offset : ndarray of shape (d,) and (k,)
        Offsets at which gradients are centred; the latter follow the batches in place.
    is_centred : bool
        Whether they are.
    n_before, every, follow : int, int, float
        Updates so far; the hidden offsets move at every so many updates, by this share.
    rates : ndarray of shape (3,)
        Learning rates of the parameters.
    full_batch : int
        Rows that take a full step; fewer take a shorter one in proportion.
    """
    n_all, d, k = len(rows), rows.shape[1], len(hidden_bias)
    n_chains = len(hidden)
    most = batch_size + n_chains
    states, shares = np.empty((most, d), np.float32), np.empty(most, np.float32)
    inputs, means = np.empty((most, k), np.float32), np.empty((most, k), np.float32)
    left, right = np.empty((most, k), np.float32), np.empty((most, d), np.float32)
    of_weights = np.empty((k, d), np.float32)
    of_visible, of_hidden = np.empty(d, np.float32), np.empty(k, np.float32)
    back_visible, back_hidden = np.empty(d, np.float32), np.empty(k, np.float32)
    power = np.empty(most * max(d, k), np.int32)
    total, start, place, update = 0.0, 0, 0, n_before
    while start < n_all:
        size = min(batch_size, n_all - start)
        n_moved = n_chains if is_persistent else size
        n = size + n_moved
        for i in range(size):
            for j in range(d):
                states[i, j] = rows[start + i, j]
        v, h = states[size:n], hidden[:n_moved]
        # Hidden states are drawn, then visible ones, and so on; persistent chains have hidden ones.
        for half in range(1 if is_persistent else 0, 2 * n_gibbs):
            if half % 2 == 0:
                source = states[:size] if half == 0 else v
                _means(source, weights.T, hidden_bias, inputs[:n_moved], means[:n_moved], power)
                _draw(means, uniform[place : place + n_moved * k], h)
                place += n_moved * k
            else:
                _means(h, weights, visible_bias, right[:n_moved], right[:n_moved], power)
                _draw(right, uniform[place : place + n_moved * d], v)
                place += n_moved * d
        both, field, mean = states[:n], inputs[:n], means[:n]
        _means(both, weights.T, hidden_bias, field, mean, power)
        if is_persistent:
            _draw(means[size:n], uniform[place : place + n_moved * k], h)
            place += n_moved * k
            for i in range(n_moved):
                for j in range(d):
                    visible[i, j] = v[i, j]
        for i in range(n):
            shares[i] = -1.0 / size if i < size else 1.0 / n_moved
        np.dot(shares[:n], both, of_visible)
        np.dot(shares[:n], mean, of_hidden)
        loss = _weighted_products(shares, mean, field) + np.dot(of_visible, visible_bias)
        total += loss * size
        for i in range(n):
            for j in range(k):
                left[i, j] = (mean[i, j] - hidden_offset[j]) * shares[i]
            for j in range(d):
                right[i, j] = states[i, j] - visible_offset[j]
        np.dot(left[:n].T, right[:n], of_weights)
        if is_centred:
            np.dot(hidden_offset, of_weights, back_visible)
            np.dot(of_weights, visible_offset, back_hidden)
            _subtract(of_visible, back_visible, _ONE)
            _subtract(of_hidden, back_hidden, _ONE)
        share = min(size / full_batch, 1.0)
        _subtract(weights.reshape(-1), of_weights.reshape(-1), np.float32(share * rates[0]))
        _subtract(visible_bias, of_visible, np.float32(share * rates[1]))
        _subtract(hidden_bias, of_hidden, np.float32(share * rates[2]))
        if is_centred and follow > 0.0 and update % every == 0:
            rate = np.float32(follow * share)
            for j in range(k):
                average = np.float32(0.0)
                for i in range(size):
                    average += mean[i, j]
                hidden_offset[j] += rate * (average / np.float32(size) - hidden_offset[j])
        update += 1
        start += size
    return total
