"""Inference: how latents and negatives are found, in pure torch."""
