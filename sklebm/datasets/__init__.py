"""Data that need no download: known densities in the plane, and pairs of related images."""

from sklebm.datasets.pairs import (
    make_random_dots,
    make_rotated_pairs,
    make_scaled_pairs,
    make_shifted_pairs,
)
from sklebm.datasets.plane import Checkerboard, GaussianCircle, Moons, PlaneDensity, Rings

__all__ = [
    "Checkerboard",
    "GaussianCircle",
    "Moons",
    "PlaneDensity",
    "Rings",
    "make_random_dots",
    "make_rotated_pairs",
    "make_scaled_pairs",
    "make_shifted_pairs",
]
