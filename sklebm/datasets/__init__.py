"""Data that need no download: densities and series with known likelihood, motion, pairs."""

from sklebm.datasets.curves import ConditionalDensity, Trumpet, TwoBranches
from sklebm.datasets.motion import make_bouncing_digits, make_pendulum, make_rotating_digits
from sklebm.datasets.pairs import (
    make_random_dots,
    make_rotated_pairs,
    make_scaled_pairs,
    make_shifted_pairs,
)
from sklebm.datasets.plane import Checkerboard, GaussianCircle, Moons, PlaneDensity, Rings
from sklebm.datasets.series import AutoregressiveProcess, SwitchingProcess

__all__ = [
    "AutoregressiveProcess",
    "Checkerboard",
    "ConditionalDensity",
    "GaussianCircle",
    "Moons",
    "PlaneDensity",
    "Rings",
    "SwitchingProcess",
    "Trumpet",
    "TwoBranches",
    "make_bouncing_digits",
    "make_pendulum",
    "make_random_dots",
    "make_rotated_pairs",
    "make_rotating_digits",
    "make_scaled_pairs",
    "make_shifted_pairs",
]
