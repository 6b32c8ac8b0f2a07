"""sporco's solvers and its own recipes, at their best, for ``bench_conv_sparse_coder``.

Recipes are those of the examples that sporco installs (``csc/gwnden_gry.py``, ``csc/cbpdn_ams_gry``
and ``csc/cbpdn_ams_grd_gry.py``, ``cdl/cbpdndl_cns_gry.py``, ``cdl/cbpdndl_pgm_clr.py``); what
departs from one says so. sporco is imported within functions: other parts go without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Pixels by which its examples extend an image, so that nothing wraps around its boundary.
PADDING = 8


def limit_threads(n_threads: int) -> None:
    """Its transforms and its elementwise products use all cores otherwise."""
    import sporco.fft

    sporco.fft.pyfftw_threads = n_threads
    try:
        import numexpr
    except ImportError:  # it then does without
        return
    numexpr.set_num_threads(n_threads)


def planes(rows_of_images: NDArray[Any]) -> NDArray[Any]:
    """Images or kernels in sporco's order: height, width, number."""
    return np.moveaxis(rows_of_images, 0, 2)


def flat_codes(found: NDArray[Any]) -> NDArray[Any]:
    """Its codes, (height, width, 1, images, kernels), as our rows: one map after the other."""
    return np.ascontiguousarray(found[:, :, 0].transpose(2, 3, 0, 1)).reshape(found.shape[3], -1)


def multiplier_solver(
    sharp: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    *,
    automatic: bool,
    n_iter: int,
    callback: Callable[[Any], Any] | None = None,
) -> Any:
    """Its ADMM, with its default, adaptive penalty or the fixed one of its examples.

    FastSolve leaves out what only statistics need; adaptation needs the residuals and keeps them.
    """
    from sporco.admm import cbpdn

    settings = {
        "MaxMainIter": n_iter,
        "RelStopTol": 1e-12,  # the number of iterations decides
        "FastSolve": True,
        "HighMemSolve": True,
        "AuxVarObj": True,  # its objective, too, is that of the sparse codes
        "Callback": callback,
    }
    if not automatic:
        settings |= {"rho": 50 * alpha + 0.1, "AutoRho": {"Enabled": False}, "RelaxParam": 1.8}
    options = cbpdn.ConvBPDN.Options(settings)
    return cbpdn.ConvBPDN(planes(kernels), planes(sharp), alpha, options, dimK=1)


def gradient_solver(
    sharp: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    *,
    curvature: float,
    n_iter: int,
    callback: Callable[[Any], Any] | None = None,
) -> Any:
    """Its accelerated gradient, with the largest eigenvalue as L instead of its default of 500.

    Backtracking, which only raises L, took three times as long an iteration and ended at 3/4 of it.
    """
    from sporco.pgm import cbpdn

    options = cbpdn.ConvBPDN.Options(
        {"MaxMainIter": n_iter, "FastSolve": True, "L": curvature, "Callback": callback}
    )
    return cbpdn.ConvBPDN(planes(kernels), planes(sharp), alpha, options, dimK=1)


# Name: how it codes, and how it updates the kernels.
LEARNERS = {
    "sporco, ADMM and consensus": ("admm", "cns"),
    "sporco, ADMM and gradient": ("admm", "pgm"),
    "sporco, gradient and gradient": ("pgm", "pgm"),
}


def learn_kernels(
    name: str,
    sharp: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    seconds: float,
    curvature: float | None = None,
) -> list[tuple[float, NDArray[Any]]]:
    """Kernels after each iteration within so many seconds, and the seconds, set-up included.

    ``curvature`` is the start of L in updates of kernels by gradients; its example takes 50.
    """
    from sporco.dictlrn import cbpdndl
    from sporco.pgm.backtrack import BacktrackStandard

    coding, updating = LEARNERS[name]
    found: list[tuple[float, NDArray[Any]]] = []

    def note(learner: Any) -> bool:
        nonlocal noting
        begin = time.perf_counter()
        atoms = np.moveaxis(learner.getdict().squeeze(), 2, 0).reshape(len(kernels), -1)
        found.append((begin - start - noting, np.array(atoms, np.float32)))
        noting += time.perf_counter() - begin
        return found[-1][0] > seconds

    code_options: dict[str, Any] = {"FastSolve": True}
    kernel_options: dict[str, Any] = {"FastSolve": True}
    if coding == "admm":
        code_options |= {"HighMemSolve": True, "rho": 50 * alpha + 0.5}
    else:
        code_options |= {"Backtrack": BacktrackStandard(gamma_u=1.1), "L": 36.0}
    if updating == "cns":
        kernel_options |= {"rho": 10.0}
    else:
        kernel_options |= {"Backtrack": BacktrackStandard(), "L": curvature}
    start, noting = time.perf_counter(), 0.0
    options = cbpdndl.ConvBPDNDictLearn.Options(
        {"MaxMainIter": 10_000, "Callback": note, "CBPDN": code_options, "CCMOD": kernel_options},
        xmethod=coding,
        dmethod=updating,
    )
    cbpdndl.ConvBPDNDictLearn(
        planes(kernels), planes(sharp), alpha, options, xmethod=coding, dmethod=updating, dimK=1
    ).solve()
    return found


def _extend(image: NDArray[Any], mode: str = "symmetric") -> NDArray[Any]:
    return np.pad(image, PADDING, mode=mode)


def _crop(image: NDArray[Any]) -> NDArray[Any]:
    return image[PADDING:-PADDING, PADDING:-PADDING]


def denoise(
    image: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    low_pass: float,
    *,
    weighted: bool,
    n_iter: int = 250,
) -> NDArray[Any]:
    """Its recipe for white noise; with the weights of the penalty that it uses there, or without.

    Without the weights, the penalty parameter of its ADMM is not the recipe's but adaptive.
    """
    from sporco import fft, signal
    from sporco.admm import cbpdn

    smooth, sharp = signal.tikhonov_filter(image, low_pass, 16)
    settings = {"MaxMainIter": n_iter, "RelStopTol": 3e-3, "HighMemSolve": True}
    if weighted:
        beyond = signal.tikhonov_filter(_extend(image), low_pass, 16)[1]
        spectra = np.conj(fft.rfftn(planes(kernels), beyond.shape, (0, 1)))
        products = fft.irfftn(
            spectra * fft.rfftn(beyond[..., np.newaxis], None, (0, 1)), beyond.shape, (0, 1)
        )
        weights = 1.0 / np.maximum(products**2, 1e-8)
        settings |= {"L1Weight": weights, "AutoRho": {"Enabled": False}, "rho": 400 * alpha}
    options = cbpdn.ConvBPDN.Options(settings)
    solver = cbpdn.ConvBPDN(planes(kernels), _extend(sharp), alpha, options, dimK=0)
    solver.solve()
    return _crop(solver.reconstruct().squeeze()) + smooth


def smooth_by_variation(
    image: NDArray[Any], mask: NDArray[Any], weight: float, n_iter: int = 200
) -> NDArray[Any]:
    """The smooth part, extended, of its recipe for holes: total variation of the seen pixels."""
    from sporco.admm import tvl2

    options = tvl2.TVL2Denoise.Options(
        {"MaxMainIter": n_iter, "DFidWeight": _extend(mask, "constant").astype(np.float32),
         "gEvalY": False, "AutoRho": {"Enabled": True}}
    )  # fmt: skip
    return np.asarray(tvl2.TVL2Denoise(_extend(image), weight, options).solve())


def inpaint(
    image: NDArray[Any],
    mask: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    smooth: NDArray[Any],
    *,
    n_iter: int = 200,
) -> NDArray[Any]:
    """Its recipe for holes, additive mask simulation, after an extended smooth part."""
    from sporco.admm import cbpdn

    seen = _extend(mask, "constant").astype(np.float32)
    sharp = seen * (_extend(image) - smooth)
    options = cbpdn.ConvBPDN.Options(_inpainting(alpha, n_iter))
    solver = cbpdn.AddMaskSim(cbpdn.ConvBPDN, planes(kernels), sharp, seen, alpha, opt=options)
    solver.solve()
    return _crop(smooth + solver.reconstruct().squeeze())


def _inpainting(alpha: float, n_iter: int) -> dict[str, Any]:
    return {
        "MaxMainIter": n_iter,
        "HighMemSolve": True,
        "RelStopTol": 5e-3,
        "RelaxParam": 1.8,
        "rho": 50 * alpha + 0.1,
        "AutoRho": {"Enabled": False, "StdResiduals": False},
    }


def inpaint_by_gradients(
    image: NDArray[Any],
    mask: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    weight: float,
    *,
    n_iter: int = 200,
) -> NDArray[Any]:
    """Its other recipe: the smooth part is a map of its own, whose gradients cost ``weight``."""
    from sporco.admm import cbpdn

    seen = _extend(mask, "constant").astype(np.float32)
    impulse = np.zeros_like(kernels[:1])
    impulse[0, 0, 0] = 1.0
    all_kernels = planes(np.concatenate([impulse, kernels]))
    # The first map, and the one that simulates the mask, which comes last, are not penalised.
    sparse = np.ones((1, 1, len(kernels) + 2), np.float32)
    sparse[..., [0, -1]] = 0.0
    rough = np.full(len(kernels) + 2, 0.2, np.float32)
    rough[[0, -1]] = 1.0, 0.0
    options = cbpdn.ConvBPDNGradReg.Options(
        _inpainting(alpha, n_iter) | {"L1Weight": sparse, "GradWeight": rough}
    )
    solver = cbpdn.AddMaskSim(
        cbpdn.ConvBPDNGradReg, all_kernels, _extend(image), seen, alpha, weight, opt=options
    )
    solver.solve()
    return _crop(solver.reconstruct().squeeze())


def inpaint_after(
    smooth_part: Callable[[NDArray[Any], NDArray[Any], float], NDArray[Any]],
    image: NDArray[Any],
    mask: NDArray[Any],
    kernels: NDArray[Any],
    alpha: float,
    weight: float,
    *,
    n_iter: int = 200,
) -> NDArray[Any]:
    """The first recipe with a smooth part of somebody else's, which need not be extended."""
    smooth = _extend(smooth_part(image, mask, weight))
    return inpaint(image, mask, kernels, alpha, smooth, n_iter=n_iter)
