"""Embeddings learnt from pairs: pairs that belong together are close, others far apart."""

from sklebm.embedding.contrastive_embedding import ContrastiveEmbedding

__all__ = ["ContrastiveEmbedding"]
