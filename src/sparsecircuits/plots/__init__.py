"""Pictures of training runs: curves from `metrics.jsonl`, as a PNG or as one offline HTML page."""

from sparsecircuits.plots.draw import plot_runs

__all__ = ["plot_runs"]
