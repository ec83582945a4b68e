"""What of a model varies when it runs, or when only some of its nodes do: one description for pruning's narrow passes,
compiled circuits, the sparse runtime and programs."""
