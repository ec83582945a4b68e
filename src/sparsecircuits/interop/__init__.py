"""Other people's formats: the released checkpoints of Gao et al. 2025, read into our model."""
