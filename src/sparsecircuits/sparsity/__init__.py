"""Weight sparsity: how many entries each matrix may keep, when, and the projection onto that.

Method: Gao et al. 2025, section 2.1 and the released training script.
"""
