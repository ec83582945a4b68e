"""`sc.show`: a circuit in a notebook, as the offline page in a frame."""

import html
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError
from sparsecircuits.viewer.peek import file_payload
from sparsecircuits.viewer.picture import render_html

if TYPE_CHECKING:
    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.tasks import Task


@dataclass(frozen=True)
class Shown:
    """What a notebook displays: `page` is the whole page, which makes no request."""

    page: str
    height: int

    def _repr_html_(self) -> str:
        # The frame has no origin of its own: the page's script cannot reach the notebook.
        return (
            f'<iframe srcdoc="{html.escape(self.page, quote=True)}" sandbox="allow-scripts allow-downloads" '
            f'title="circuit" style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<circuit page of {len(self.page):,} characters: shown by a notebook>"


def show(
    circuit: "Circuit",
    model: "SparseTransformer | None" = None,
    *,
    task: "Task | None" = None,
    details: bool = False,
    height: int = 720,
) -> Shown:
    """The picture of a circuit for a notebook cell.

    With its model it has prompts, activations and attention patterns; `details` adds every node's weights and
    its examples from pretraining text (which is read for it), what it fires on, and the loss-vs-size curve. task: the
    circuit's, where it is none of those that ship (see `tasks.own`); without it, the picture of such a circuit has no
    prompts. height: pixels. Raises UserError when the circuit belongs to another model.
    """
    if model is None:
        return Shown(render_html(file_payload(circuit)), height)
    from sparsecircuits.data import Tokenizer
    from sparsecircuits.tasks import get_task
    from sparsecircuits.viewer.live import LiveCircuit
    from sparsecircuits.viewer.offline import recorded

    circuit.check_model(model)
    tokenizer = model.tokenizer or Tokenizer.default()
    try:
        own = task or get_task(circuit.task, tokenizer)
    except UserError as error:
        return Shown(render_html(file_payload(circuit).extended(problem=f"{error}. Give show() the task.")), height)
    live = LiveCircuit(model, circuit, own if own.tokenizer else own.bind(tokenizer), threading.RLock())
    return Shown(render_html(recorded(live) if details else live.payload()), height)
