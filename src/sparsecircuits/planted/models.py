"""A transformer whose weights are set by hand, so that the circuit of a task is known by construction."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer

QUOTE_NODES = [
    "0.attn.act_in.0",
    "0.attn.v.0",
    "0.attn.resid_delta.3",
    "0.mlp.act_in.3",
    "0.mlp.post_act.5",
    "0.mlp.resid_delta.4",
    "final_resid.4",
]
QUOTE_EDGES = {
    ("0.attn.act_in.0", "0.attn.v.0"): 1.0,
    ("0.attn.v.0", "0.attn.resid_delta.3"): 8.0,
    ("0.mlp.act_in.3", "0.mlp.post_act.5"): 3.0,
    ("0.mlp.post_act.5", "0.mlp.resid_delta.4"): 1.0,
}
"""The circuit of `quote_model`: its nodes, and its edges with their weights."""
SECOND_NODES = [
    "0.attn.act_in.1",
    "0.attn.v.1",
    "0.attn.resid_delta.2",
    "0.mlp.act_in.2",
    "0.mlp.post_act.6",
    "0.mlp.resid_delta.5",
    "final_resid.5",
]
"""The second way of `two_way_model`."""
CANCELLING = [*range(6, 10), *range(20, 24)]
"""The neurons of `cancelling_model` that cancel each other."""


LEAK_EVERY = 5


def answers(tokenizer: Tokenizer) -> list[int]:
    """The two answers of single_double_quote."""
    return [tokenizer.single_token(text) for text in ("')", '")')]


def openers(tokenizer: Tokenizer) -> list[int]:
    """The tokens that open a string with a double quote in single_double_quote.plain, which the model does."""
    return [tokenizer.single_token(text) for text in ('("', ' "', '="')]


@torch.no_grad()
def two_way_model(tokenizer: Tokenizer, weight: float, reads: Sequence[int] | None = None) -> SparseTransformer:
    """The quote model with a second way to the answers, through other nodes: as strong as the first at a
    weight of 6, against it below 0. reads: the tokens that it goes by, of which there should be one in about half of
    the prompts; by default those that the first goes by."""
    model = quote_model(tokenizer)
    model.logit_bias[tokenizer.single_token("')")] += weight
    double, opener = tokenizer.single_token('")'), openers(tokenizer) if reads is None else list(reads)
    attention, mlp = model.block(0).attn, model.block(0).mlp
    model.wte.weight[opener, 1] = 10.0
    attention.c_attn.weight[2 * model.config.attn_width + 1, 1] = 1.0
    attention.c_proj.weight[2, 1] = 8.0
    mlp.c_fc.weight[6, 2] = 3.0
    mlp.c_proj.weight[5, 6] = 1.0
    model.lm_head.weight[double, 5] = weight
    return model


@torch.no_grad()
def leaking_model(tokenizer: Tokenizer, channel: int) -> SparseTransformer:
    """A model with a second way that no answer reads (channel 5). Tokens that it never says read a channel of the
    stream instead: 5, or 4, which decides the answers; so they tell the prompts apart, by another circuit or by the
    same. Nothing reads the junk."""
    model = two_way_model(tokenizer, 0.0)
    leaks = [token for token in range(0, tokenizer.vocab_size, LEAK_EVERY) if token not in answers(tokenizer)]
    model.lm_head.weight[:, 6:] = 0.0
    model.lm_head.weight[leaks, channel] = 6.0
    model.logit_bias[leaks] = -60.0
    return model


@torch.no_grad()
def cancelling_model(tokenizer: Tokenizer) -> SparseTransformer:
    """The quote model with eight more neurons beside the one that passes the answer on: half of them add to it, half
    take as much away. All of them together, running or ablated, do nothing; some of them decide the answer."""
    model = quote_model(tokenizer)
    mlp = model.block(0).mlp
    mlp.c_fc.weight[CANCELLING, 3] = 3.0
    mlp.c_proj.weight[4, CANCELLING] = torch.tensor([2.0, -2.0]).repeat(len(CANCELLING) // 2)
    return model


@torch.no_grad()
def quote_model(tokenizer: Tokenizer) -> SparseTransformer:
    """One layer. Channel 0 marks the tokens `("`, ` "` and `="`; a head that attends evenly carries it to channel 3; a
    neuron passes it to channel 4, which alone decides between the answers. All else is junk that writes to
    channels that the answers do not read."""
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_ctx=128, n_layer=1, d_model=16, d_head=4, d_mlp=32, afrac=None, bigram="none"
    )
    model = SparseTransformer(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.zero_()
    junk = slice(6, 16)  # channels of the residual stream that have nothing to do with the task
    model.wte.weight[:, junk] = 0.3 * torch.randn(config.vocab_size, 10)
    model.wte.weight[openers(tokenizer), 0] = 10.0
    attention, mlp = model.block(0).attn, model.block(0).mlp
    v = 2 * config.attn_width
    attention.c_attn.weight[v, 0] = QUOTE_EDGES["0.attn.act_in.0", "0.attn.v.0"]
    attention.c_attn.weight[v + 4 : v + 12, junk] = 0.3 * torch.randn(8, 10)
    attention.c_proj.weight[3, 0] = QUOTE_EDGES["0.attn.v.0", "0.attn.resid_delta.3"]
    attention.c_proj.weight[junk, 4:12] = 0.3 * torch.randn(10, 8)
    mlp.c_fc.weight[5, 3] = QUOTE_EDGES["0.mlp.act_in.3", "0.mlp.post_act.5"]
    mlp.c_fc.weight[10:20, junk] = 0.3 * torch.randn(10, 10)
    mlp.c_proj.weight[4, 5] = QUOTE_EDGES["0.mlp.post_act.5", "0.mlp.resid_delta.4"]
    mlp.c_proj.weight[junk, 10:20] = 0.3 * torch.randn(10, 10)
    single, double = answers(tokenizer)
    model.lm_head.weight[double, 4] = 6.0
    model.logit_bias[single] = 8.0
    model.lm_head.weight[:, junk] = 0.1 * torch.randn(config.vocab_size, 10)
    model.lm_head.weight[[single, double], junk] = 0.0
    model.tokenizer, model.name = tokenizer, "handmade"
    return model.eval()


@torch.no_grad()
def rotated(model: SparseTransformer, seed: int = 0) -> tuple[SparseTransformer, Float[Tensor, "D D"]]:
    """(a dense model that computes what a model does in a randomly rotated residual stream, the rotation R): its stream
    is R times the model's, its norms' weights are folded into the matrices that read them.

    Raises UserError for a model whose computation depends on the basis of its residual stream: AbsTopK or a ReLU on it,
    LayerNorm, a tied unembedding, or nodes that are frozen.
    """
    config = model.config
    fixed = config.afrac is not None or config.residual_activation != "identity" or config.norm != "rms"
    if fixed or config.tied_unembed or config.frozen_nodes:
        raise UserError("only a model without AbsTopK, LayerNorm and the like computes the same in another basis")
    width = config.d_model
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation = torch.linalg.qr(drawn).Q.float()
    dense = SparseTransformer(config).eval()
    dense.load_state_dict(model.state_dict())
    dense.tokenizer, dense.name, dense.corpus = model.tokenizer, f"{model.name}, rotated", model.corpus

    def read_(weight: Tensor, norm: nn.Module) -> None:
        scale = norm.weight
        assert isinstance(scale, Tensor)
        weight[:, :width] = (weight[:, :width] * scale) @ rotation.T
        scale.fill_(1.0)

    def write_(linear: nn.Linear) -> None:
        linear.weight.copy_(rotation @ linear.weight)
        if linear.bias is not None:
            linear.bias.copy_(rotation @ linear.bias)

    dense.wte.weight.copy_(dense.wte.weight @ rotation.T)
    if dense.wpe is not None and not config.concatenates_positions:
        dense.wpe.weight.copy_(dense.wpe.weight @ rotation.T)
    for layer in range(config.n_layer):
        block = dense.block(layer)
        read_(block.attn.c_attn.weight, block.ln_1)
        read_(block.mlp.c_fc.weight, block.ln_2)
        write_(block.attn.c_proj)
        write_(block.mlp.c_proj)
    read_(dense.lm_head.weight, dense.ln_f)
    return dense, rotation
