"""Data that need no download: densities in the plane and series with known likelihood, motion."""

from sklebm.datasets.motion import make_bouncing_digits, make_pendulum, make_rotating_digits
from sklebm.datasets.plane import Checkerboard, GaussianCircle, Moons, PlaneDensity, Rings
from sklebm.datasets.series import AutoregressiveProcess, SwitchingProcess

__all__ = [
    "AutoregressiveProcess",
    "Checkerboard",
    "GaussianCircle",
    "Moons",
    "PlaneDensity",
    "Rings",
    "SwitchingProcess",
    "make_bouncing_digits",
    "make_pendulum",
    "make_rotating_digits",
]
