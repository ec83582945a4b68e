"""Read 0.mlp.post_act and ablate one of its neurons with plain PyTorch forward hooks.

    python examples/pytorch_hooks.py quickstart --prompt "print('hello" --node 0.mlp.post_act.5

Prints the neuron's activation at each token, and the likeliest next tokens with and without it.
"""

import argparse

import torch

import sparsecircuits as sc


def read(model: torch.nn.Module, site: str, ids: torch.Tensor) -> torch.Tensor:
    """The output [batch, sequence, channels] of a site such as `0.mlp.post_act`."""
    seen = []
    handle = model.get_submodule(f"blocks.{site}").register_forward_hook(lambda _m, _in, out: seen.append(out))
    try:
        model(ids)
    finally:
        handle.remove()
    return seen[0]


def ablated(model: torch.nn.Module, site: str, channel: int, ids: torch.Tensor) -> torch.Tensor:
    """Logits [batch, sequence, vocabulary] with one channel of a site set to zero."""

    def zero(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[..., channel] = 0
        return output

    handle = model.get_submodule(f"blocks.{site}").register_forward_hook(zero)
    try:
        return model(ids)
    finally:
        handle.remove()


@torch.no_grad()
def main() -> None:
    """Run on one prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", default="print('hello")
    parser.add_argument("--node", default="0.mlp.post_act.0")
    arguments = parser.parse_args()
    site, _, channel = arguments.node.rpartition(".")

    model = sc.load_model(arguments.model)
    ids = torch.tensor([model.tokenizer.encode(arguments.prompt)])
    activations = read(model, site, ids)[0, :, int(channel)]
    for token, value in zip(ids[0].tolist(), activations.tolist(), strict=True):
        print(f"{model.tokenizer.token(token)!r:12} {value:+.4f}")
    for name, logits in (("whole model", model(ids)), ("ablated", ablated(model, site, int(channel), ids))):
        best = logits[0, -1].topk(3)
        shown = [f"{model.tokenizer.token(int(token))!r} {logits[0, -1, token]:.3f}" for token in best.indices]
        print(f"{name}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
