"""Find the few nodes that a task needs: rank them (learned gates, or baselines), discretise, prune edges, search.

Method: Gao et al. 2025, section 2.2 and appendix.
"""
