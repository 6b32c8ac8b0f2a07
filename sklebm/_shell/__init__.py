"""Internals of the shell: rows, tables, ranks, progress, state, random numbers."""
