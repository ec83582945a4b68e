"""The transformer: its config, its sites and hooks, generation, and how it is stored and loaded.

Knows nothing of training or pruning.
"""
