"""The commands that act on models through circuits: `edit`."""

from typing import TYPE_CHECKING

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.checks import check_paths
from sparsecircuits.cli.show import print_json, print_table, print_text, progress
from sparsecircuits.errors import UserError

if TYPE_CHECKING:
    from sparsecircuits.data import TokenData
    from sparsecircuits.models.transformer import SparseTransformer


def edit(command: args.Edit) -> None:
    """Surgery on a model, with its audit."""
    from sparsecircuits.bridges.edited import circuits_of, edit_into
    from sparsecircuits.interop.loading import load_model

    check_paths(models=[command.model], data=command.data, out=[command.out])
    model = load_model(command.model)
    remove, keep, spare = (circuits_of(command.model, g, model) for g in (command.remove, command.keep, command.spare))
    # A folder of circuits to spare may hold those to remove.
    spare = [circuit for circuit in spare if circuit not in remove]
    tokens = _tokens_of(model, command.data)
    with progress("audit   ") as update:
        found = edit_into(
            model,
            command.out,
            tokens.val,
            remove=remove,
            keep=keep,
            spare=spare,
            n_pairs=command.pairs,
            max_tokens=command.tokens,
            report=update,
        )
    if command.json:
        print_json({"path": str(command.out), **found})
        return
    audit = found["audit"]
    names = ("loss_before", "loss_after", "calibrated_before", "calibrated_after", "accuracy_before", "accuracy_after")
    rows = [[change["task"], *(change[name] for name in names)] for change in audit["tasks"]]  # type: ignore[literal-required]
    header = ["task", "raw before", "after", "calibrated before", "after", "accuracy before", "after"]
    print_table("losses on held-out prompts", header, rows, right=(1, 2, 3, 4, 5, 6))
    folded = found["folded_at_readers"] + found["folded_at_source"]
    print_text(
        f"{command.out}: validation loss {audit['val_loss_before']:.4f} before, {audit['val_loss_after']:.4f} after, "
        f"KL {audit['kl']:.4f} nats a token; {folded} nodes folded into biases, {found['gated']} gated for good"
    )


def _tokens_of(model: "SparseTransformer", data: str | None) -> "TokenData":
    """The tokens of a corpus, by default of the one that a model was trained on."""
    from sparsecircuits.data import Tokenizer, prepare_tokens

    data = data or model.corpus
    if data is None:
        raise UserError("the model does not say what text it was trained on: give --data")
    return prepare_tokens(data, model.tokenizer or Tokenizer.default())
