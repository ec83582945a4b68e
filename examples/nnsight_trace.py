"""Read 0.mlp.post_act and ablate one of its neurons with nnsight.

    pip install nnsight
    python examples/nnsight_trace.py quickstart --prompt "print('hello" --node 0.mlp.post_act.5

Prints the neuron's activation at each token, and the likeliest next tokens with and without it.
"""

import argparse

import torch
from nnsight import NNsight

import sparsecircuits as sc


def read(model: torch.nn.Module, layer: int, ids: torch.Tensor) -> torch.Tensor:
    """The output [batch, sequence, channels] of `{layer}.mlp.post_act`."""
    wrapped = NNsight(model)
    with wrapped.trace(ids):
        activations = wrapped.blocks[layer].mlp.post_act.output.save()
    return activations  # noqa: RET504 (nnsight runs the body of `with` by itself)


def ablated(model: torch.nn.Module, layer: int, neuron: int, ids: torch.Tensor) -> torch.Tensor:
    """Logits [batch, sequence, vocabulary] with one neuron of `{layer}.mlp.post_act` set to zero."""
    wrapped = NNsight(model)
    with wrapped.trace(ids):
        wrapped.blocks[layer].mlp.post_act.output[..., neuron] = 0
        logits = wrapped.output.save()
    return logits  # noqa: RET504


@torch.no_grad()
def main() -> None:
    """Run on one prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", default="print('hello")
    parser.add_argument("--node", default="0.mlp.post_act.0", help="{layer}.mlp.post_act.{neuron}")
    arguments = parser.parse_args()
    layer, neuron = arguments.node.replace(".mlp.post_act", "").split(".")

    model = sc.load_model(arguments.model)
    ids = torch.tensor([model.tokenizer.encode(arguments.prompt)])
    activations = read(model, int(layer), ids)[0, :, int(neuron)]
    for token, value in zip(ids[0].tolist(), activations.tolist(), strict=True):
        print(f"{model.tokenizer.token(token)!r:12} {value:+.4f}")
    for name, logits in (("whole model", model(ids)), ("ablated", ablated(model, int(layer), int(neuron), ids))):
        best = logits[0, -1].topk(3)
        shown = [f"{model.tokenizer.token(int(token))!r} {logits[0, -1, token]:.3f}" for token in best.indices]
        print(f"{name}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
