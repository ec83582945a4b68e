"""The rules of verdicts on made-up rows: every claim's rule says each of its words where it should."""

import math

import pytest

from sparsecircuits.claims.catalogue import CLAIMS
from sparsecircuits.claims.judging import geometric_mean, interval, spread

DONE, PARTLY, NOT, UNSAID = "reproduced", "partly", "not reproduced", "cannot be said at this scale"


def seeds(losses, **more):
    """Rows of variants over seeds: {variant: validation losses}."""
    return [
        {"variant": variant, "seed": seed, "validation loss": loss, "nonzeros": 1000}
        | {name: values[variant][seed] for name, values in more.items()}
        for variant, found in losses.items()
        for seed, loss in enumerate(found)
    ]


def kurtoses(sparse, denser, dense):
    rows = {"sparse": sparse, "twice the nonzeros": denser, "dense": dense}
    return [
        {"variant": v, "seed": seed, "log mean kurtosis": x}
        for v, found in rows.items()
        for seed, x in enumerate(found)
    ]


def agreements(mixed, alike):
    found = {"sparse and dense": mixed, "dense and dense": alike}
    return [{"variant": v, "seed": s, "correlation": x} for v, xs in found.items() for s, x in enumerate(xs)]


def sized(losses, edges):
    """Rows with circuits of two tasks: {variant: edges by seed}."""
    rows = seeds(losses)
    for row in rows:
        row |= {"edges, a": edges[row["variant"]][row["seed"]], "edges, b": 3 * edges[row["variant"]][row["seed"]]}
    return rows


def necessity(*losses):
    return [{"whole model": 0.01, "without it": a, "without random nodes": b} for a, b in losses]


def sizes(gradient):
    row = {"learned, edges": 10, "integrated-gradients, edges": 20, "eap-ig, edges": 20}
    return [row | {"gradient, edges": gradient} for _ in range(3)]


def swept(*edges):
    return [
        {"model": "m", "task": task, "target": target, "edges": n}
        for task in "ab"
        for target, n in zip((0.5, 0.15, 0.05, 0.015), edges, strict=True)
    ]


def units(n):
    return [{"units": 5, "of units": 10, "edges in units": n, "our edges": 10} for _ in range(3)]


def lists(first, last):
    return [{"model": "m", "items": 2, "accuracy": first}, {"model": "m", "items": 32, "accuracy": last}]


def commented(whole, one):
    words = {"model": "m", "comment": "words", "accuracy": whole, "accuracy on one level": 0.95}
    return [words, {"model": "m", "comment": "[[", "accuracy": 0.7, "accuracy on one level": one}]


def queries(constant, zero):
    return [{"model": "m", "head": "1.2", "constant costs": constant, "zero costs": zero}]


def shape(nodes=12, edges=20, loss=0.1, layers=2):
    row = {"model": "m", "nodes": nodes, "edges": edges, "heads": 2, "layers with heads": layers, "neurons": 1, "v": 1}
    tasks = ("single_double_quote", "set_or_string_fixedvarname")
    return [row | {"task": task, "loss": loss} for task in tasks]


WORSE = [2.0, 2.1, 2.2]
BETTER = [1.0, 1.1, 1.2]
MIXED = [0.9, 1.2, 1.9]
CASES = [
    ("inverse_pruning", necessity(*[(0.68, 0.02)] * 10), DONE),
    ("inverse_pruning", necessity(*[(0.68, 0.02)] * 5, *[(0.2, 0.02)] * 5), PARTLY),
    ("inverse_pruning", necessity(*[(0.68, 0.4)] * 10), NOT),
    ("inverse_pruning", [], UNSAID),
    ("causal_scrubbing", [{"kept": 0.5}, {"kept": -0.2}], DONE),
    ("causal_scrubbing", [{"kept": 0.5}, {"kept": 0.95}], PARTLY),
    ("causal_scrubbing", [{"kept": 0.92}, {"kept": 0.95}], NOT),
    ("causal_scrubbing", [{"kept": None}], UNSAID),
    ("binarisation", [{"loss before": 0.1, "loss after": 0.3}] * 3, DONE),
    ("binarisation", [{"loss before": 0.1, "loss after": 0.6}] * 3, PARTLY),
    ("binarisation", [{"loss before": 0.1, "loss after": 0.69}] * 3, NOT),
    ("binarisation", [{"loss before": 0.1, "loss after": 0.3}] * 2, UNSAID),
    ("quote_circuit", shape(), DONE),
    ("quote_circuit", shape(nodes=40, edges=100), PARTLY),
    ("quote_circuit", shape(edges=1000), NOT),
    ("quote_circuit", shape(loss=0.3), UNSAID),
    ("two_hops", shape(), DONE),
    ("two_hops", shape(edges=200), PARTLY),
    ("two_hops", shape(layers=1), NOT),
    ("two_hops", [], UNSAID),
    ("learned_attribution", sizes(1000), DONE),
    ("learned_attribution", sizes(30), PARTLY),
    ("learned_attribution", sizes(11), NOT),
    ("learned_attribution", sizes(None), UNSAID),
    ("target_losses", swept(5, 9, 15, 25), DONE),
    ("target_losses", swept(1, 9, 15, 100), PARTLY),
    ("target_losses", swept(5, 4, 15, 25), NOT),
    ("target_losses", swept(5, 9, 15, None), UNSAID),
    ("size_curves", swept(5, 9, 15, 25), DONE),
    ("size_curves", swept(5, 9, 15, None), UNSAID),
    ("dead_neurons", [{"model": "m", "dead": 0.5}, {"model": "n", "dead": 0.2}], DONE),
    ("dead_neurons", [{"model": "m", "dead": 0.5}, {"model": "n", "dead": 0.1}], PARTLY),
    ("dead_neurons", [{"model": "m", "dead": 0.1}], NOT),
    ("dead_neurons", [], UNSAID),
    ("coarse_units", units(1000), DONE),
    ("coarse_units", units(30), PARTLY),
    ("coarse_units", units(10), NOT),
    ("coarse_units", units(None), UNSAID),
    ("bracket_dilution", lists(0.98, 0.6), DONE),
    ("bracket_dilution", lists(0.98, 0.85), PARTLY),
    ("bracket_dilution", lists(0.98, 0.97), NOT),
    ("bracket_dilution", lists(0.85, 0.5), UNSAID),
    ("bracket_comment", commented(0.95, 0.5), DONE),
    ("bracket_comment", commented(0.95, 0.84), PARTLY),
    ("bracket_comment", commented(0.95, 0.94), NOT),
    ("bracket_comment", commented(0.8, 0.5), UNSAID),
    ("constant_query", queries(1e-5, 1e-3), DONE),
    ("constant_query", queries(1e-3, 1e-2), PARTLY),
    ("constant_query", queries(1e-2, 1e-1), NOT),
    ("constant_query", [], UNSAID),
    ("kurtosis_shipped", [{"model": "m", "log mean kurtosis": 3.0}] * 2, DONE),
    ("kurtosis_shipped", [{"model": "m", "log mean kurtosis": x} for x in (3.0, 5.0)], PARTLY),
    ("kurtosis_shipped", [{"model": "m", "log mean kurtosis": 5.0}], NOT),
    ("kurtosis_shipped", [], UNSAID),
    ("kurtosis", kurtoses([3, 3, 3], [2, 2, 2], [1, 1, 1]), DONE),
    ("kurtosis", kurtoses([3, 3, 3], [4, 2, 2], [1, 1, 1]), PARTLY),
    ("kurtosis", kurtoses([3, 3, 0], [2, 2, 2], [1, 1, 1]), NOT),
    ("kurtosis", kurtoses([3, 3], [2, 2], [1, 1]), UNSAID),
    ("agreement", agreements([0.93] * 3, [0.94] * 3), DONE),
    ("agreement", agreements([0.83] * 3, [0.9] * 3), PARTLY),
    ("agreement", agreements([0.5] * 3, [0.94] * 3), NOT),
    ("agreement", agreements([0.93], [0.94]), UNSAID),
    ("sparse_dense", sized({"sparse": WORSE, "dense": WORSE}, {"sparse": [9] * 3, "dense": [999] * 3}), DONE),
    ("sparse_dense", sized({"sparse": WORSE, "dense": WORSE}, {"sparse": [9] * 3, "dense": [20] * 3}), PARTLY),
    ("sparse_dense", sized({"sparse": WORSE, "dense": WORSE}, {"sparse": [9] * 3, "dense": [5] * 3}), NOT),
    ("sparse_dense", sized({"sparse": WORSE, "dense": BETTER}, {"sparse": [9] * 3, "dense": [999] * 3}), UNSAID),
    ("wider", sized({"narrow": WORSE, "wide": BETTER}, {"narrow": [50] * 3, "wide": [20] * 3}), DONE),
    ("wider", sized({"narrow": WORSE, "wide": BETTER}, {"narrow": [20] * 3, "wide": [50] * 3}), PARTLY),
    ("wider", sized({"narrow": BETTER, "wide": WORSE}, {"narrow": [20] * 3, "wide": [50] * 3}), NOT),
    ("wider", [], UNSAID),
    ("more_nonzeros", sized({"fewer": WORSE, "more": BETTER}, {"fewer": [20] * 3, "more": [50] * 3}), DONE),
    ("more_nonzeros", sized({"fewer": WORSE, "more": BETTER}, {"fewer": [50] * 3, "more": [20] * 3}), PARTLY),
    ("more_nonzeros", sized({"fewer": BETTER, "more": WORSE}, {"fewer": [50] * 3, "more": [20] * 3}), NOT),
    ("more_nonzeros", [], UNSAID),
    ("sparse_after", seeds({"trained sparse": BETTER, "cut afterwards": WORSE}), DONE),
    ("sparse_after", seeds({"trained sparse": BETTER, "cut afterwards": MIXED}), PARTLY),
    ("sparse_after", seeds({"trained sparse": WORSE, "cut afterwards": BETTER}), NOT),
    ("sparse_after", [], UNSAID),
    ("hard_concrete", seeds({"the recipe": BETTER, "HardConcrete gates": WORSE}), DONE),
    ("hard_concrete", seeds({"the recipe": BETTER, "HardConcrete gates": MIXED}), PARTLY),
    ("hard_concrete", seeds({"the recipe": WORSE, "HardConcrete gates": BETTER}), NOT),
    (
        "hard_concrete",
        [
            row | {"nonzeros": 500 if row["variant"] != "the recipe" else 1000}
            for row in seeds({"the recipe": BETTER, "HardConcrete gates": WORSE})
        ],
        UNSAID,
    ),
    ("recipe_gradient", seeds({"the recipe": BETTER, "as it is": WORSE}), DONE),
    ("recipe_gradient", seeds({"the recipe": BETTER, "as it is": [None] * 3}), DONE),
    ("recipe_gradient", seeds({"the recipe": BETTER, "as it is": MIXED}), PARTLY),
    ("recipe_gradient", seeds({"the recipe": WORSE, "as it is": BETTER}), NOT),
    ("recipe_gradient", [], UNSAID),
    ("recipe_floor", seeds({"the recipe": WORSE, "no floor": BETTER}), DONE),
    ("recipe_floor", seeds({"the recipe": BETTER, "no floor": WORSE}), NOT),
    ("recipe_anneal", seeds({"the recipe": BETTER, "no anneal": WORSE}), DONE),
    ("recipe_anneal", seeds({"the recipe": BETTER, "no anneal": MIXED}), PARTLY),
    ("recipe_sharkfin", seeds({"the recipe": BETTER, "no sharkfin": WORSE}), DONE),
    ("recipe_sharkfin", seeds({"the recipe": WORSE, "no sharkfin": BETTER}), NOT),
]


@pytest.mark.parametrize(("claim", "rows", "word"), CASES, ids=[f"{c}: {w}" for c, _, w in CASES])
def test_a_rule_says(claim, rows, word):
    found = CLAIMS[claim].judge(rows)
    assert (found.word, bool(found.reason)) == (word, True), found.reason


def test_every_claim_has_a_rule_that_was_tried():
    assert {claim for claim, _, _ in CASES} == set(CLAIMS)
    assert len(CLAIMS) >= 12


def test_the_interval_of_a_mean_is_students():
    low, high = interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), abs=2e-3)
    assert spread([1.0]) == "1.000"
    assert geometric_mean([1, 100]) == pytest.approx(10)
