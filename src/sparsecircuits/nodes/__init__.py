"""What a set of nodes is and does: the node space, edges, gates that freeze the rest, ablation values, the task loss.

How sets are found is `pruning`; a set that is kept as data is a circuit, in `circuits`.
"""
