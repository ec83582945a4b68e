"""Acting on models through circuits: surgery, bridges to dense models, hybrid passes, steering, circuits by prompt.

A bridge couples a sparse model to a frozen dense one at every sublayer boundary (Gao et al. 2025, section 5).
"""
