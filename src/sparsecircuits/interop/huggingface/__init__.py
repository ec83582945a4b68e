"""Hugging Face: the model's config and model classes, registered with the Auto classes, export, Trainer callback.

`configuration_sparsecircuits.py` and `modeling_sparsecircuits.py` travel with every exported model and run
without this package; the rest of the folder does not.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from sparsecircuits.interop.huggingface.configuration_sparsecircuits import SparseCircuitsConfig
from sparsecircuits.interop.huggingface.modeling_sparsecircuits import SparseCircuitsForCausalLM

AutoConfig.register(SparseCircuitsConfig.model_type, SparseCircuitsConfig, exist_ok=True)
AutoModelForCausalLM.register(SparseCircuitsConfig, SparseCircuitsForCausalLM, exist_ok=True)
# save_pretrained then copies the two files beside the weights and names them in config.json.
SparseCircuitsConfig.register_for_auto_class("AutoConfig")
SparseCircuitsForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["SparseCircuitsConfig", "SparseCircuitsForCausalLM"]
