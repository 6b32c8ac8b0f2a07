"""Sparse codes: inference, learnt encoders and dictionaries."""

from sklebm.coding.sparse_coder import SparseCoder

__all__ = ["SparseCoder"]
