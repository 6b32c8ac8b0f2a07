"""Sparse codes: inference, learnt encoders and dictionaries."""

from sklebm.coding.conv_predictive_sparse_decomposition import ConvPredictiveSparseDecomposition
from sklebm.coding.conv_sparse_coder import ConvSparseCoder
from sklebm.coding.deconvolutional_network import DeconvolutionalNetwork
from sklebm.coding.deep_sparse_coder import DeepSparseCoder
from sklebm.coding.lista_encoder import LISTAEncoder
from sklebm.coding.predictive_sparse_decomposition import PredictiveSparseDecomposition
from sklebm.coding.sparse_coder import SparseCoder

__all__ = [
    "ConvPredictiveSparseDecomposition",
    "ConvSparseCoder",
    "DeconvolutionalNetwork",
    "DeepSparseCoder",
    "LISTAEncoder",
    "PredictiveSparseDecomposition",
    "SparseCoder",
]
