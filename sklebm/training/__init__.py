"""The engine: gradient training through skorch, without its overhead per batch."""
