"""Data that need no download: densities in the plane that are known exactly."""

from sklebm.datasets.plane import Checkerboard, GaussianCircle, Moons, PlaneDensity, Rings

__all__ = ["Checkerboard", "GaussianCircle", "Moons", "PlaneDensity", "Rings"]
