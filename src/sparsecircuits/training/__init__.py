"""Training: configs and presets, the loop, the optimizer, checkpoints and metrics."""
