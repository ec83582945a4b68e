"""A circuit as data: saved, loaded, bound to its model, run with interventions, described in words.

A circuit and its model are enough to recompute everything that is shown of it; how it was found is `pruning`.
"""
