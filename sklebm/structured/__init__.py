"""Structured prediction: labels of rows that depend on the labels of their neighbours."""

from sklebm.structured.chain_crf import ChainCRF

__all__ = ["ChainCRF"]
