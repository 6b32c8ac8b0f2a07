r"""Compiled sums over the words of one document at a time, for latent Dirichlet allocation.

exp of a digamma function needs no logarithm: with y = x + 8 and r = 1 / y^2,

.. code-block:: text

    digamma(x) = log y + t(x),
    t(x) = -1 / (2 y) - r / 12 + r^2 / 120 - ... - sum_{i<8} 1 / (x + i)

The series is cut off after r^7, where it errs by less than 2e-15; the sum is one quotient of two
polynomials, whose terms are all positive. Rounding adds a few units in the last place of t.

This module imports numba, so it is imported where it is used.
"""

from __future__ import annotations

import numpy as np

from sklebm.inference._compiled import REORDER, compiled

# Above this, the series needs no shift, and (x + i)^8 would overflow before long.
_LARGE = 1e3


@compiled(fastmath=REORDER)
def digamma_parts(x):  # type: ignore[no-untyped-def]
    """y and t with digamma(x) = log y + t, for positive x."""
    above, below = 1.0, x
    for i in range(1, 8):
        above = above * (x + i) + below
        below = below * (x + i)
    large = x > _LARGE
    y = x if large else x + 8.0
    shift = 0.0 if large else above / below
    s = 1.0 / y
    r = s * s
    series = 1 / 132 - r * (691 / 32760 - r / 12)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * series))))
    return y, -0.5 * s - series - shift


@compiled(fastmath=REORDER)
def geometric_means(concentration, total, by_row, least, out):  # type: ignore[no-untyped-def]
    """exp E log p of Dirichlet distributions, a row or a column each, at least ``least``."""
    scale, exponent = np.empty(len(total)), np.empty(len(total))
    for m in range(len(total)):
        y, t = digamma_parts(total[m])
        scale[m], exponent[m] = 1.0 / y, t
    for i in range(concentration.shape[0]):
        for j in range(concentration.shape[1]):
            m = i if by_row else j
            y, t = digamma_parts(concentration[i, j])
            out[i, j] = max(y * scale[m] * np.exp(t - exponent[m]), least)


@compiled(fastmath=REORDER)
def _shares(gamma, least, out):  # type: ignore[no-untyped-def]
    """The geometric means of one document's shares, into ``out``."""
    total = 0.0
    for k in range(len(gamma)):
        total += gamma[k]
    y, exponent = digamma_parts(total)
    scale = 1.0 / y
    for k in range(len(gamma)):
        y, t = digamma_parts(gamma[k])
        out[k] = max(y * scale * np.exp(t - exponent), least)


@compiled(fastmath=REORDER)
def settle_documents(  # type: ignore[no-untyped-def]
    starts, words, values, topics, prior, gamma, first, last, tol, max_iter, least
):
    """Move rows ``first`` to ``last`` of ``gamma`` to the posteriors of the shares, in place.

    The words of document d are ``words[starts[d] : starts[d + 1]]``. O(nnz K) a step.
    """
    n_topics, longest = len(prior), 0
    for d in range(first, last):
        longest = max(longest, starts[d + 1] - starts[d])
    # Padded with zeros to whole vectors of topics and fours of words, which share loads and stores.
    width = (n_topics + 7) // 8 * 8
    near, count = np.zeros((longest + 3, width)), np.zeros(longest + 3)
    shares, sums = np.zeros(width), np.empty(width)
    for d in range(first, last):
        begin, length = starts[d], starts[d + 1] - starts[d]
        for j in range(length):
            count[j] = values[begin + j]
            for k in range(n_topics):
                near[j, k] = topics[words[begin + j], k]
        # Words that fill up the last four: any, as long as their count is zero.
        for j in range(length, length + 3):
            count[j] = 0.0
            for k in range(n_topics):
                near[j, k] = 1.0
        own = gamma[d]
        for _ in range(max_iter):
            _shares(own, least, shares)
            for k in range(width):
                sums[k] = 0.0
            for j in range(0, length, 4):
                near0, near1, near2, near3 = near[j], near[j + 1], near[j + 2], near[j + 3]
                total0 = total1 = total2 = total3 = 0.0
                for k in range(width):
                    share = shares[k]
                    total0 += near0[k] * share
                    total1 += near1[k] * share
                    total2 += near2[k] * share
                    total3 += near3[k] * share
                ratio0, ratio1 = count[j] / total0, count[j + 1] / total1
                ratio2, ratio3 = count[j + 2] / total2, count[j + 3] / total3
                for k in range(width):
                    sums[k] += (
                        ratio0 * near0[k]
                        + ratio1 * near1[k]
                        + ratio2 * near2[k]
                        + ratio3 * near3[k]
                    )
            change = 0.0
            for k in range(n_topics):
                moved = prior[k] + shares[k] * sums[k]
                change += abs(moved - own[k])
                own[k] = moved
            if change / n_topics < tol:
                break


@compiled(fastmath=REORDER)
def add_words(starts, words, values, shares, topics, out):  # type: ignore[no-untyped-def]
    """Add x_dw / (a_d . b_w) a_dk of all documents to the rows of ``out``, one for each word."""
    n_topics = shares.shape[1]
    for d in range(len(shares)):
        for place in range(starts[d], starts[d + 1]):
            w, total = words[place], 0.0
            for k in range(n_topics):
                total += topics[w, k] * shares[d, k]
            ratio = values[place] / total
            for k in range(n_topics):
                out[w, k] += ratio * shares[d, k]


@compiled(fastmath=REORDER)
def log_fits(starts, words, values, shares, topics, out):  # type: ignore[no-untyped-def]
    """sum_w x_dw log(a_d . b_w) of each document, into ``out``."""
    n_topics = shares.shape[1]
    for d in range(len(shares)):
        fit = 0.0
        for place in range(starts[d], starts[d + 1]):
            w, total = words[place], 0.0
            for k in range(n_topics):
                total += topics[w, k] * shares[d, k]
            fit += values[place] * np.log(total)
        out[d] = fit
