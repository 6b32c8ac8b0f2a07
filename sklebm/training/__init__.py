"""The engine: gradient-trained estimators through skorch, without its cost per batch."""
