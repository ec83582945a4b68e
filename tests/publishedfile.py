"""A `viz_data.pt` of the documented structure, made of the hand-made model."""

from pathlib import Path

import torch

from sparsecircuits.interop.released import config_to_released
from sparsecircuits.models.names import node_sites, split_node
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES

LOSS, CIRCUIT_LOSS = 0.02, 0.11  # nats a prompt; the files hold twice this


def viz_data(model) -> dict:
    """The hand-made circuit as its file would be. Node i's ablation raises the loss by 0.1 (i + 1), an edge's by
    a tenth of its weight."""
    by_site = {site: [] for site in node_sites(model.config.n_layer)}
    for name in QUOTE_NODES:
        site, index = split_node(name)
        by_site[site].append(index)
    rises = {name: 0.1 * (place + 1) for place, name in enumerate(QUOTE_NODES)}
    kept = {site: torch.tensor(channels, dtype=torch.long) for site, channels in by_site.items()}
    deltas, weights = [], []
    for (source, target), weight in QUOTE_EDGES.items():
        ends = (split_node(source)[0], split_node(target)[0])
        ids = [kept[end].tolist() for end in ends]
        deltas.append([torch.tensor([[2 * weight / 10]]), *ids, ends])
        weights.append([torch.tensor([[weight]]), *ids, ends])
    deltas.append([torch.zeros(1, 0), kept["0.attn.act_in"].tolist(), [], ("0.attn.act_in", "0.attn.q")])
    tokens = torch.zeros(4, 9, dtype=torch.long)
    tokens[:, :6] = torch.randint(1, 2048, (4, 6), generator=torch.Generator().manual_seed(0))
    fractions = {fraction: [[tokens[0], torch.zeros(9), 3]] for fraction in (0.001, 0.01, 0.1, 0.5)}
    return {
        "circuit_data": kept,
        "samples": {site: dict.fromkeys(channels, fractions) for site, channels in by_site.items()},
        "importances": {
            "loss": torch.tensor(2 * LOSS),
            "interv_loss": torch.tensor(2 * CIRCUIT_LOSS),
            "ch_interv_losses": {
                site: [2 * (CIRCUIT_LOSS + rises[f"{site}.{channel}"]) for channel in channels]
                for site, channels in by_site.items()
            },
            "layer_interv_losses": {"0.attn": 1.2, "0.mlp": 1.1},
            "pair_data": deltas,
            "pair_data_connections": weights,
            "task_samples": (tokens, {site: {c: torch.zeros(4, 9) for c in cs} for site, cs in by_site.items()}),
            "beeg_model_config": config_to_released(model.config),
        },
        "all_loss": [[64, 0.5], [8, 2 * CIRCUIT_LOSS]],
        "num_total_nodes": 999,
        "prune_config": {"k_coef": 1e-4, "lr": 3e-3, "target": "single_double_quote_beeg", "odd": float("nan")},
    }


def write_viz_data(content: dict, root: Path) -> Path:
    """Save it where the published tree has it: viz/<model>/<task>/<sweep>/<k>/viz_data.pt."""
    path = root / "viz" / "csp_tiny" / "single_double_quote_beeg" / "prune_v4" / "k_optim" / "viz_data.pt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path
