"""Embeddings learnt from pairs: what belongs together is close, all else is apart."""

from sklebm.embedding.contrastive_embedding import ContrastiveEmbedding

__all__ = ["ContrastiveEmbedding"]
