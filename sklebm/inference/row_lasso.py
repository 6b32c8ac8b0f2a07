r"""min_z 1/2 z' H z - c' z + alpha |z|_1, one row at a time: a compiled active-set solver.

H = D D' + ridge I is the Gram matrix of the atoms and c = D x their correlations with a row, so
that this is the lasso, the elastic net, and with z >= 0 their non-negative forms. Coordinate
descent on a small working set finds the support; a Cholesky factorisation of H on it finishes the
codes to machine precision. The optimality conditions of all atoms are checked before a row ends.

This module imports numba, so it is imported where it is used.
"""

from __future__ import annotations

import numpy as np

from sklebm.inference._compiled import REORDER, compiled


@compiled(fastmath=REORDER)
def _descend(z, q, h, n, alpha, non_negative, n_sweeps, tol):  # type: ignore[no-untyped-def]
    """Cyclic coordinate descent on the working set; ends when no gradient moves by ``tol``."""
    for _ in range(n_sweeps):
        largest = alpha * 0
        for i in range(n):
            curvature = h[i, i]
            if curvature <= 0:
                continue
            old = z[i]
            target = q[i] + curvature * old
            new = alpha * 0
            if target > alpha:
                new = (target - alpha) / curvature
            elif target < -alpha and not non_negative:
                new = (target + alpha) / curvature
            change = new - old
            if change != 0:
                z[i] = new
                row = h[i]
                for j in range(n):
                    q[j] -= change * row[j]
                largest = max(largest, abs(change) * curvature)
        if largest <= tol:
            break


@compiled(fastmath=REORDER)
def _solve_on_support(h, support, k, target, factor, factored):  # type: ignore[no-untyped-def]
    """Solve H_SS y = target in place by Cholesky; returns k, or the first dependent position.

    In that case ``target`` holds the coefficients of the atom there in terms of those before it.
    ``factored`` names the atom behind each row of ``factor`` (-1 ends it): rows are kept as long as
    the supports of two calls begin alike.
    """
    known = 0
    while known < k and factored[known] == support[known]:
        known += 1
    for a in range(k):
        row = h[support[a]]
        if a < known:
            total = target[a]
            for t in range(a):
                total -= factor[a, t] * target[t]
            target[a] = total * factor[a, a]
            continue
        scale = row[support[a]]
        pivot = scale
        for b in range(a):
            total = row[support[b]]
            for t in range(b):
                total -= factor[a, t] * factor[b, t]
            total *= factor[b, b]
            factor[a, b] = total
            pivot -= total * total
        if not pivot > scale * factor.dtype.type(1e-11 if factor.itemsize == 8 else 1e-5):
            factored[a] = -1
            for b in range(a):
                target[b] = factor[a, b]
            _solve_upper(factor, a, target)
            return a
        factor[a, a] = 1 / np.sqrt(pivot)  # the reciprocal: divisions are slow
        factored[a] = support[a]
        total = target[a]
        for t in range(a):
            total -= factor[a, t] * target[t]
        target[a] = total * factor[a, a]
    if known < k and k < len(factored):
        factored[k] = -1
    _solve_upper(factor, k, target)
    return k


@compiled(fastmath=REORDER)
def _solve_upper(factor, k, target):  # type: ignore[no-untyped-def]
    """Solve L' y = target in place."""
    for a in range(k - 1, -1, -1):
        value = target[a] * factor[a, a]
        target[a] = value
        for t in range(a):
            target[t] -= factor[a, t] * value


@compiled()
def _move(z, support, k, direction, limit):  # type: ignore[no-untyped-def]
    """Go along ``direction`` until an atom reaches zero; returns how many are left in support."""
    step = limit
    first = -1
    for a in range(k):
        old = z[support[a]]
        if old * direction[a] < 0 and -old / direction[a] <= step:
            step = -old / direction[a]
            first = a
    kept = 0
    for a in range(k):
        i = support[a]
        new = z[i] + step * direction[a]
        # Rounding may take another atom across zero together with the first.
        if a == first or new == 0 or z[i] * new < 0:
            z[i] = 0
        else:
            z[i] = new
            support[kept] = i
            kept += 1
    return kept


@compiled()
def _finish(z, c, h, n, alpha, dust, support, target, factor, factored):  # type: ignore[no-untyped-def]
    """Minimise exactly over the orthant of z, dropping atoms as they reach zero.

    Entries below ``dust`` are what rounding gave to a copy of another atom, and go first.

    Every step lowers the objective: the segment to the minimum over the support is followed up to
    the first change of sign. Atoms that depend linearly on others are traded for them.
    """
    k = 0
    for i in range(n):
        if abs(z[i]) > dust:
            support[k] = i
            k += 1
        else:
            z[i] = 0
    while k > 0:
        for a in range(k):
            i = support[a]
            target[a] = c[i] - alpha if z[i] > 0 else c[i] + alpha
        solved = _solve_on_support(h, support, k, target, factor, factored)
        if solved == k:
            for a in range(k):
                target[a] -= z[support[a]]
            kept = _move(z, support, k, target, alpha * 0 + 1)
            if kept == k:
                return
            k = kept
            continue
        # d_s = sum_b w_b d_b: along (-w, 1) nothing but |z|_1 changes, and that linearly.
        slope = np.sign(z[support[solved]])
        for b in range(solved):
            slope -= np.sign(z[support[b]]) * target[b]
            target[b] = -target[b]
        target[solved] = alpha * 0 + 1
        down = -np.sign(z[support[solved]]) if abs(slope) < 1e-6 else -np.sign(slope)
        for b in range(solved + 1):
            target[b] *= down
        for b in range(solved + 1, k):
            target[b] = 0
        kept = _move(z, support, k, target, np.inf)
        if kept == k:
            return
        k = kept


@compiled(fastmath=REORDER | {"nnan", "ninf"})
def _peak(q, non_negative):  # type: ignore[no-untyped-def]
    """The largest gradient in the directions that z may take."""
    top = q[0] * 0
    if non_negative:
        for j in range(len(q)):
            top = max(top, q[j])
    else:
        for j in range(len(q)):
            top = max(top, abs(q[j]))
    return top


@compiled(fastmath=REORDER)
def _gradient(q, c, z, atoms, n, dictionary, row, residual, gram, ridge):  # type: ignore[no-untyped-def]
    """q = c - H z over all atoms, by the Gram matrix or, if there is none, by the residual."""
    n_atoms = len(c)
    if len(gram) > 0:
        q[:] = c
        for i in range(n):
            value = z[i]
            if value != 0:
                line = gram[atoms[i]]
                for j in range(n_atoms):
                    q[j] -= value * line[j]
    else:
        residual[:] = row
        for i in range(n):
            if z[i] != 0:
                residual -= z[i] * dictionary[atoms[i]]
        for j in range(n_atoms):
            line = dictionary[j]
            total = ridge * 0
            for t in range(len(residual)):
                total += line[t] * residual[t]
            q[j] = total
    if ridge > 0:
        for i in range(n):
            q[atoms[i]] -= ridge * z[i]


@compiled(fastmath=REORDER)
def _squared_norm(row):  # type: ignore[no-untyped-def]
    """The squared length of a row."""
    total = row[0] * 0
    for t in range(len(row)):
        total += row[t] * row[t]
    return total


@compiled()
def screen_rows(  # type: ignore[no-untyped-def]
    rows, correlations, alpha, non_negative, codes, gaps, squared_norms, active
):  # fmt: skip
    """Find the rows whose code is not zero; returns how many, and writes their indices.

    A row whose correlations are all at most alpha is done: its code is zero. One that overflows is
    done too, with a code and a gap that are no numbers.
    """
    n_active = 0
    for r in range(len(rows)):
        squared_norms[r] = _squared_norm(rows[r])
        if not np.isfinite(squared_norms[r]):
            codes[r] = np.nan
            gaps[r] = np.nan
        elif _peak(correlations[r], non_negative) > alpha:
            active[n_active] = r
            n_active += 1
    return n_active


@compiled(fastmath=REORDER)
def _grow(atoms, n, j, h, dictionary, gram, ridge):  # type: ignore[no-untyped-def]
    """Append atom j to the working set and its products to the local Gram matrix."""
    atoms[n] = j
    for i in range(n + 1):
        if len(gram) > 0:
            value = gram[j, atoms[i]]
        else:
            value = ridge * 0
            other, line = dictionary[atoms[i]], dictionary[j]
            for t in range(len(line)):
                value += line[t] * other[t]
        h[n, i] = value
        h[i, n] = value
    h[n, n] += ridge


@compiled()
def _gap(c, q, z, atoms, n, squared_norm, alpha, peak):  # type: ignore[no-untyped-def]
    """Objective and duality gap; the dual point is the residual, shrunk until feasible.

    ``peak`` is the largest gradient in the directions that z may take.
    """
    product, quadratic, size = alpha * 0, alpha * 0, alpha * 0
    for i in range(n):
        value = z[i]
        product += value * c[atoms[i]]
        quadratic += value * (c[atoms[i]] - q[atoms[i]])
        size += abs(value)
    residual = squared_norm - 2 * product + quadratic
    objective = residual / 2 + alpha * size
    scale = min(alpha / peak, alpha * 0 + 1) if peak > 0 else alpha * 0 + 1
    dual = scale * (squared_norm - product) - scale * scale * residual / 2
    return objective, max(objective - dual, alpha * 0)


@compiled()
def solve_rows(  # type: ignore[no-untyped-def]
    active, rows, correlations, squared_norms, dictionary, gram, alpha, ridge, non_negative, tol,
    max_iter, codes, gaps, n_iter,
):  # fmt: skip
    """Codes, relative duality gaps and iterations of the active rows, written in place.

    ``correlations`` holds the products of the rows with the atoms. ``gram`` of shape (0, 0) means
    that products of atoms are computed where they are needed, which pays for few rows. ``codes``
    must be zero.
    """
    n_atoms = len(dictionary)
    z, q, q_local, c_local, target = np.empty((5, n_atoms), codes.dtype)
    residual = np.empty(dictionary.shape[1], codes.dtype)
    atoms = np.empty(n_atoms, np.int64)
    support = np.empty(n_atoms, np.int64)
    factored = np.empty(n_atoms + 1, np.int64)
    chosen = np.zeros(n_atoms, np.bool_)
    room = min(n_atoms, 64)
    h, factor = np.empty((room, room), codes.dtype), np.empty((room, room), codes.dtype)
    rounding = 64 * np.finfo(codes.dtype).eps
    for r in active:
        c, squared_norm = correlations[r], squared_norms[r]
        top = _peak(c, non_negative)
        q[:] = c
        n = 0
        chosen[:] = False
        factored[0] = -1
        worst, count, stalled, least = top - alpha, 0, 0, codes.dtype.type(np.inf)
        while count < max_iter:
            count += 1
            # A share of the worst violation or more: ties stay together, and few atoms join.
            bar = alpha + worst / 4
            for j in range(n_atoms):
                if abs(q[j]) >= bar and not chosen[j] and (q[j] > 0 or not non_negative):
                    if n == room:
                        room = min(n_atoms, 2 * room)
                        grown = np.empty((room, room), codes.dtype)
                        grown[:n, :n] = h
                        h, factor = grown, np.empty((room, room), codes.dtype)
                        factored[0] = -1
                    _grow(atoms, n, j, h, dictionary, gram, ridge)
                    chosen[j] = True
                    z[n] = 0
                    n += 1
            for i in range(n):
                q_local[i] = q[atoms[i]]
                c_local[i] = c[atoms[i]]
            precise = worst <= alpha / 2 or count > 20
            _descend(z, q_local, h, n, alpha, non_negative, 4 if precise else 2, alpha / 100)
            if precise:
                dust = alpha * 0
                if count < 20:
                    for i in range(n):
                        dust = max(dust, abs(z[i]) * rounding)
                _finish(z, c_local, h, n, alpha, dust, support, target, factor, factored)
            _gradient(q, c, z, atoms, n, dictionary, rows[r], residual, gram, ridge)
            peak = _peak(q, non_negative)
            worst = peak - alpha
            if precise:
                objective, gap = _gap(c, q, z, atoms, n, squared_norm, alpha, peak)
                stalled = stalled + 1 if objective >= least else 0
                least = min(least, objective)
                if worst <= rounding * top or gap <= tol * objective or stalled > 3:
                    break
        objective, gap = _gap(c, q, z, atoms, n, squared_norm, alpha, alpha + worst)
        gaps[r] = gap / objective if objective > 0 else gap
        n_iter[r] = count
        for i in range(n):
            codes[r, atoms[i]] = z[i]


@compiled(fastmath=REORDER)
def sweep_atoms(  # type: ignore[no-untyped-def]
    dictionary, code_products, row_products, unit_norm, positive, n_sweeps
):  # fmt: skip
    """Minimise over one atom after the other, in place: see ``atom_update``."""
    n_atoms, n_features = dictionary.shape
    atom = np.empty(n_features)
    for _ in range(n_sweeps):
        for k in range(n_atoms):
            usage = code_products[k, k]
            if not usage > 0:
                continue
            atom[:] = row_products[k]
            for j in range(n_atoms):
                weight = code_products[k, j]
                if weight != 0:
                    line = dictionary[j]
                    for i in range(n_features):
                        atom[i] -= weight * line[i]
            total = 0.0
            for i in range(n_features):
                atom[i] = dictionary[k, i] + atom[i] / usage
                if positive and atom[i] < 0:
                    atom[i] = 0.0
                total += atom[i] * atom[i]
            length = np.sqrt(total)
            if unit_norm and not length > 0:
                continue
            scale = 1 / length if unit_norm or length > 1 else 1.0
            for i in range(n_features):
                dictionary[k, i] = scale * atom[i]
