"""A circuit for other programs: as Python, and as a graph."""

from xml.etree import ElementTree

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.descriptions import Description, describe
from sparsecircuits.errors import UserError
from sparsecircuits.inference.program import write_program
from sparsecircuits.inference.readable import Readable, write_readable
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.tasks import Task

PAIRS = 64  # that descriptions are made from


def circuit_program(circuit: Circuit, model: SparseTransformer, task: Task) -> str:
    """A Python file whose predict(tokens) gives the circuit's two scores, with what each node fires on beside it.
    Raises UserError for a circuit of another model, or one that programs are not written for."""
    _check(circuit, model, task)
    bound = circuit.on(model)
    words = {found.name: _words(found) for found in describe(bound, task, pairs=PAIRS)}
    return write_program(bound, words, f"{circuit.task} in {model.name}")


def readable_program(circuit: Circuit, model: SparseTransformer, task: Task) -> Readable:
    """The simplest Python file that decides as the circuit does (see `readable.write_readable`)."""
    _check(circuit, model, task)
    return write_readable(circuit.on(model), task, f"{circuit.task} in {model.name}")


def _check(circuit: Circuit, model: SparseTransformer, task: Task) -> None:
    circuit.check_model(model)
    circuit.check_task(task)
    if task.loss == "class":
        raise UserError(f"{task.name} scores one answer against all other tokens: a program has two scores")


def _words(found: Description) -> str:
    """Where a node fires, short enough for a comment."""
    if found.rule is None or found.threshold is None:
        return found.words.split(" (")[0]
    return f"{'>=' if found.above else '<'} {found.threshold:.3g} on {found.rule.words}"


def circuit_graphml(circuit: Circuit) -> str:
    """Nodes with layer, site, channel, mean and importance, and edges with weights, as GraphML."""
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    keys = {
        "node": {"layer": "int", "site": "string", "index": "int", "mean": "double", "importance": "double"},
        "edge": {"weight": "double", "importance": "double"},
    }
    for kind, names in keys.items():
        for name, type_ in names.items():
            attributes = {"id": f"{kind}_{name}", "for": kind, "attr.name": name, "attr.type": type_}
            ElementTree.SubElement(root, "key", attributes)
    graph = ElementTree.SubElement(root, "graph", id=circuit.task, edgedefault="directed")
    for node in circuit.nodes:
        _add(graph, "node", {"id": node.name}, keys["node"], node)
    for edge in circuit.edges:
        _add(graph, "edge", {"source": edge.source, "target": edge.target}, keys["edge"], edge)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(graph: ElementTree.Element, kind: str, ends: dict[str, str], names: dict[str, str], of: object) -> None:
    element = ElementTree.SubElement(graph, kind, ends)
    for name in names:
        value = getattr(of, name)
        if value is not None:
            ElementTree.SubElement(element, "data", key=f"{kind}_{name}").text = str(value)
