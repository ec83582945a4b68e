"""Find the few nodes that a task needs: learned gates, discretised and calibrated.

Method: Gao et al. 2025, section 2.2 and appendix.
"""
