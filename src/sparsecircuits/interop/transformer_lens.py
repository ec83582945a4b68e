"""Models in TransformerLens (4.x): the adapter that its entry point `transformer_lens.architectures` finds, and a
bridge of a model in memory.

The sites keep their published names (`blocks.0.mlp.post_act.hook_out`); where TransformerLens has a name of its own for
the same activation, that works too (`blocks.0.attn.hook_q`, `blocks.0.hook_resid_mid`). Its weight processing (folding
of norms, centring) is refused: AbsTopK would keep other channels.
"""

from typing import TYPE_CHECKING, Any

from transformer_lens.conversion_utils.conversion_steps import RearrangeTensorConversion
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import OpaqueBlockBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from sparsecircuits.models.transformer import SparseTransformer

ARCHITECTURE = "SparseCircuitsForCausalLM"
BLOCK_NAMES = {
    "hook_resid_pre": "resid_in.hook_out",
    "hook_attn_out": "attn.hook_out",
    "hook_resid_mid": "resid_mid.hook_out",
    "hook_mlp_out": "mlp.hook_out",
    "hook_resid_post": "hook_out",
}
"""TransformerLens' names within a block, and the hooks that they are of. What attention and MLP give is what they
write, after AbsTopK."""
ATTENTION_NAMES = {f"hook_{name}": f"{name}.hook_out" for name in ("q", "k", "v", "z")}
MLP_NAMES = {"hook_post": "post_act.hook_out"}


class SparseCircuitsAdapter(ArchitectureAdapter):  # type: ignore[misc]
    """Where TransformerLens finds the parts of a `SparseCircuitsForCausalLM`: each is hooked and runs its own code."""

    # Norms cannot be folded, nor streams centred, past AbsTopK.
    supports_compatibility_mode = False
    # The model names its cache by the version of transformers; without one, prompts are read again, which is exact.
    supports_kv_cache = False

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.cfg.normalization_type = "RMS"
        self.cfg.positional_embedding_type = "none"  # TransformerLens has no name for positions beside the stream
        self.component_mapping = {
            "embed": _part("wte"),
            "blocks": OpaqueBlockBridge(
                name="blocks",
                submodules={
                    "resid_in": _part("resid_in"),
                    "attn": _part("attn", self._attention(), ATTENTION_NAMES),
                    "resid_mid": _part("resid_mid"),
                    "mlp": _part(
                        "mlp", {name: _part(name) for name in ("act_in", "post_act", "resid_delta")}, MLP_NAMES
                    ),
                },
                hook_alias_overrides=BLOCK_NAMES,
            ),
            "final_resid": _part("final_resid"),
            "ln_final": _part("ln_f"),
            "unembed": _part("lm_head"),
        }

    def _attention(self) -> dict[str, GeneralizedComponent]:
        """Parts of attention. Queries, keys, values and what heads give are shown with a dimension for heads."""
        heads = RearrangeTensorConversion("batch pos (head channel) -> batch pos head channel", head=self.cfg.n_heads)
        parts = {name: _part(module, rule=heads) for name, module in (("q", "q"), ("k", "k"), ("v", "v"), ("z", "y"))}
        return {"act_in": _part("act_in"), **parts, "resid_delta": _part("resid_delta")}


def _part(
    module: str,
    parts: dict[str, GeneralizedComponent] | None = None,
    names: dict[str, str] | None = None,
    rule: Any = None,
) -> GeneralizedComponent:
    """A module with a hook before and one behind it."""
    return GeneralizedComponent(module, submodules=parts, hook_alias_overrides=names, conversion_rule=rule)


def to_transformer_lens(model: "SparseTransformer") -> "TransformerBridge":
    """A copy of a model as a TransformerBridge: `run_with_cache`, `run_with_hooks` and what builds on them.

    `TransformerBridge.boot_transformers` knows only a list of its own (4.3), not what is registered.
    """
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    from sparsecircuits.interop.huggingface_export import to_hf, to_hf_tokenizer

    # Also where the package is run from its sources, and so has no entry point.
    ArchitectureAdapterFactory.register_adapter(ARCHITECTURE, SparseCircuitsAdapter)
    converted = to_hf(model)
    tokenizer = None if model.tokenizer is None else to_hf_tokenizer(model)
    return build_bridge_from_module(
        converted, ARCHITECTURE, hf_config=converted.config, tokenizer=tokenizer, model_name=model.name
    ).eval()
