"""Made-up picture payloads: the quote circuit of the paper in small, and random ones of any size."""

import math
import random
from typing import Any

SITES = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
)
INTO = {  # site -> the sites it has weights into
    "attn.act_in": ("attn.q", "attn.k", "attn.v"),
    "attn.v": ("attn.resid_delta",),
    "mlp.act_in": ("mlp.post_act",),
    "mlp.post_act": ("mlp.resid_delta",),
}
D_HEAD = 16

QUOTE_PROMPTS = [
    (["print", '("', "hello", " world"], 1),
    (["print", "('", "hello", " world"], 0),
    (["def", " greet", "(", "name", "):\n", "    ", "return", ' ("', "hi", " there"], 1),
    (["def", " greet", "(", "name", "):\n", "    ", "return", " ('", "hi", " there"], 0),
    (["x", " =", " open", '("', "data", ".", "txt"], 1),
    (["x", " =", " open", "('", "data", ".", "txt"], 0),
]
TOKEN_IDS: dict[str, int] = {}


def token_id(text: str) -> int:
    return TOKEN_IDS.setdefault(text, 100 + len(TOKEN_IDS))


def node(name: str, rng: random.Random, prompts: list[dict[str, Any]], importance: float | None) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    final = first == "final_resid"
    site, _, index = (name if final else rest).rpartition(".")
    in_head = site in ("attn.q", "attn.k", "attn.v")
    return {
        "name": name,
        "layer": None if final else int(first),
        "site": site,
        "index": int(index),
        "head": int(index) // D_HEAD if in_head else None,
        "mean": round(rng.gauss(0, 0.1), 4),
        "importance": importance,
        "activations": [[round(rng.gauss(0, 0.08), 4) for _ in p["tokens"]] for p in prompts],
    }


def prompts_of(rng: random.Random) -> list[dict[str, Any]]:
    prompts = []
    for tokens, answer in QUOTE_PROMPTS:
        side = 1 if answer == 1 else -1
        full, circuit = 4.5 + rng.random(), 1.6 + rng.random()
        prompts.append(
            {
                "tokens": tokens,
                "answer": answer,
                "full": [-side * full / 2, side * full / 2],
                "circuit": [-side * circuit / 2, side * circuit / 2],
            }
        )
    return prompts


def causal_pattern(length: int, peak: int) -> list[list[float]]:
    rows = []
    for query in range(length):
        scores = [math.exp(3.5 if key == peak else 0.0) if key <= query else 0.0 for key in range(length)]
        rows.append([score / sum(scores) for score in scores])
    return rows


def base_payload(rng: random.Random) -> dict[str, Any]:
    return {
        "schema": 1,
        "title": "single_double_quote.plain",
        "task": "single_double_quote.plain",
        "description": "Close the string with the quote that opened it: ') or \")",
        "model": {
            "name": "nano",
            "id": "ab12cd34",
            "n_layer": 2,
            "d_model": 256,
            "n_head": 16,
            "d_head": 16,
            "parameters": 2100000,
            "nonzeros": 42000,
        },
        "summary": {
            "loss": 0.148,
            "loss_full": 0.01,
            "loss_empty": 0.69,
            "loss_ablated": 2.1,
            "target_loss": 0.15,
            "n_nodes": 0,
            "n_edges": 0,
            "ablation": "mean",
            "split": "held-out",
            "n_prompts": 256,
        },
        "answers": [{"text": "')", "id": 123}, {"text": '")', "id": 124}],
        "nodes": [],
        "edges": [],
        "residual": [],
        "embedding": [],
        "logits": [],
        "prompts": prompts_of(rng),
    }


def counted(payload: dict[str, Any]) -> dict[str, Any]:
    payload["summary"] |= {"n_nodes": len(payload["nodes"]), "n_edges": len(payload["edges"])}
    return payload


def quote_payload() -> dict[str, Any]:
    """Twelve nodes that close a string: a quote detector for the key, the quote's type for the value."""
    rng = random.Random(0)
    payload = base_payload(rng)
    importances = {
        "0.mlp.act_in.87": 0.41,
        "0.mlp.act_in.203": 0.08,
        "0.mlp.post_act.863": 0.52,
        "0.mlp.post_act.411": 0.06,
        "0.mlp.resid_delta.31": 0.55,
        "1.attn.act_in.12": 0.71,
        "1.attn.act_in.31": 0.5,
        "1.attn.q.53": 0.12,
        "1.attn.k.58": 0.49,
        "1.attn.v.61": 0.74,
        "1.attn.resid_delta.9": 0.8,
        "final_resid.9": 0.83,
    }
    payload["nodes"] = [node(name, rng, payload["prompts"], value) for name, value in importances.items()]
    payload["edges"] = [
        {"source": source, "target": target, "weight": weight}
        for source, target, weight in [
            ("0.mlp.act_in.87", "0.mlp.post_act.863", 1.84),
            ("0.mlp.act_in.203", "0.mlp.post_act.863", -0.42),
            ("0.mlp.act_in.203", "0.mlp.post_act.411", 0.66),
            ("0.mlp.post_act.863", "0.mlp.resid_delta.31", 1.21),
            ("0.mlp.post_act.411", "0.mlp.resid_delta.31", -0.37),
            ("1.attn.act_in.31", "1.attn.k.58", 1.52),
            ("1.attn.act_in.31", "1.attn.q.53", 0.31),
            ("1.attn.act_in.12", "1.attn.v.61", 1.1),
            ("1.attn.v.61", "1.attn.resid_delta.9", -1.66),
        ]
    ]
    payload["residual"] = [
        {"source": "0.mlp.resid_delta.31", "target": "1.attn.act_in.31"},
        {"source": "1.attn.resid_delta.9", "target": "final_resid.9"},
    ]
    payload["embedding"] = [
        {"token": token, "token_id": token_id(token), "target": target, "weight": weight}
        for token, target, weight in [
            ('("', "0.mlp.act_in.87", 0.92),
            ("('", "0.mlp.act_in.87", 0.88),
            (' ("', "0.mlp.act_in.87", 0.71),
            (" ('", "0.mlp.act_in.87", 0.69),
            ("print", "0.mlp.act_in.203", 0.35),
            (" open", "0.mlp.act_in.203", 0.22),
            ('("', "1.attn.act_in.12", 0.97),
            ("('", "1.attn.act_in.12", -1.02),
            (' ("', "1.attn.act_in.12", 0.64),
            (" ('", "1.attn.act_in.12", -0.7),
        ]
    ]
    payload["logits"] = [
        {"source": "final_resid.9", "answer": 0, "weight": 1.31},
        {"source": "final_resid.9", "answer": 1, "weight": -1.27},
    ]
    shape_quote_activations(payload)
    payload["attention"] = [
        {
            "layer": 1,
            "head": 3,
            "patterns": [causal_pattern(len(p["tokens"]), opening(p["tokens"])) for p in payload["prompts"]],
        }
    ]
    return counted(payload)


def opening(tokens: list[str]) -> int:
    return next(i for i, token in enumerate(tokens) if token[-1] in "'\"")


def shape_quote_activations(payload: dict[str, Any]) -> None:
    nodes = {item["name"]: item for item in payload["nodes"]}
    for i, prompt in enumerate(payload["prompts"]):
        at = opening(prompt["tokens"])
        side = 1.0 if prompt["answer"] == 1 else -1.0
        for name, size in [("0.mlp.act_in.87", 1.3), ("0.mlp.post_act.863", 2.4), ("1.attn.k.58", 3.1)]:
            nodes[name]["activations"][i][at] = size
        for name in ("1.attn.act_in.12", "1.attn.v.61"):
            nodes[name]["activations"][i][at] = 1.4 * side
        for name in ("1.attn.resid_delta.9", "final_resid.9"):
            values = nodes[name]["activations"][i]
            values[at:] = [-1.9 * side + 0.1 * j for j in range(len(values) - at)]


def random_payload(n_nodes: int, n_layer: int = 2, seed: int = 1) -> dict[str, Any]:
    """A circuit of `n_nodes` random nodes, joined the way a model's nodes can be joined."""
    rng = random.Random(seed)
    payload = base_payload(rng)
    payload["model"]["n_layer"] = n_layer
    channels = rng.sample(range(256), min(256, max(4, n_nodes // 6)))
    heads = [rng.randrange(16) for _ in range(max(1, n_nodes // 20))]
    names: dict[str, None] = {f"final_resid.{channels[0]}": None}
    while len(names) < n_nodes:
        site = rng.choice([*SITES, "mlp.post_act", "final_resid"])
        if site == "final_resid":
            names[f"{site}.{rng.choice(channels[: max(2, len(channels) // 3)])}"] = None
            continue
        if site in ("attn.q", "attn.k", "attn.v"):
            index = rng.choice(heads) * D_HEAD + rng.randrange(D_HEAD)
        elif site == "mlp.post_act":
            index = rng.randrange(1024)
        else:
            index = rng.choice(channels)
        names[f"{rng.randrange(n_layer)}.{site}.{index}"] = None
    ordered = sorted(names, key=place)
    payload["nodes"] = [
        node(name, rng, payload["prompts"], round(rng.expovariate(4), 4) if rng.random() < 0.9 else None)
        for name in ordered
    ]
    join(payload, rng)
    return counted(payload)


def place(name: str) -> tuple[int, int, int]:
    if name.startswith("final_resid"):
        return (999, 0, int(name.rpartition(".")[2]))
    layer, rest = name.split(".", 1)
    site, _, index = rest.rpartition(".")
    return (int(layer), SITES.index(site), int(index))


def join(payload: dict[str, Any], rng: random.Random) -> None:
    nodes = payload["nodes"]
    for source in nodes:
        targets = [t for t in nodes if t["layer"] == source["layer"] and t["site"] in INTO.get(source["site"], ())]
        for target in rng.sample(targets, min(len(targets), rng.choice([1, 1, 2, 3]))):
            weight = round(rng.gauss(0, 1), 4)
            payload["edges"].append({"source": source["name"], "target": target["name"], "weight": weight})
        if source["site"].endswith("resid_delta"):
            payload["residual"] += [
                {"source": source["name"], "target": t["name"]}
                for t in nodes
                if t["index"] == source["index"]
                and (t["site"] == "final_resid" or t["site"].endswith("act_in"))
                and place(t["name"])[:2] > place(source["name"])[:2]
            ]
    tokens = sorted({token for prompt in payload["prompts"] for token in prompt["tokens"]})
    for target in nodes:
        if target["site"] == "final_resid":
            for answer in (0, 1):
                weight = round(rng.gauss(0, 1), 4)
                payload["logits"].append({"source": target["name"], "answer": answer, "weight": weight})
        elif target["site"].endswith("act_in") and rng.random() < 0.5:
            for token in rng.sample(tokens, rng.choice([1, 2, 3])):
                payload["embedding"].append(
                    {
                        "token": token,
                        "token_id": token_id(token),
                        "target": target["name"],
                        "weight": round(rng.gauss(0, 1), 4),
                    }
                )
