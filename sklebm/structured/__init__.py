"""Structured prediction: labels of rows that depend on the labels of their neighbours."""

from sklebm.structured.chain_crf import ChainCRF
from sklebm.structured.grid_mrf import GridMRF

__all__ = ["ChainCRF", "GridMRF"]
