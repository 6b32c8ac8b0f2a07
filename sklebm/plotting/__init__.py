"""Displays in scikit-learn's form (``from_estimator``, ``plot``, ``ax_``, ``figure_``).

matplotlib is imported when something is drawn: ``pip install sklebm[plot]``.
"""

from sklebm.plotting.components import ComponentsDisplay

__all__ = ["ComponentsDisplay"]
