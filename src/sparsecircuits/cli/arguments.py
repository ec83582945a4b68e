"""What each command takes, as dataclasses that tyro turns into a parser. Imports no torch."""

import dataclasses
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NoReturn

import tyro

from sparsecircuits import __version__
from sparsecircuits.bridges.config import STRENGTHS, BridgeConfig
from sparsecircuits.cli.resuming import option_value, require_agreement, saved_config_of
from sparsecircuits.errors import no_such
from sparsecircuits.interop.pretrained import folder_of, is_pretrained
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.training.config import PRESETS, TrainConfig, dense_twin, preset

Flat = tyro.conf.arg(name="")
Flag = tyro.conf.FlagCreatePairsOff
Preset = Literal["nano", "micro", "small", "paper"]


@dataclass(kw_only=True)
class Common:
    """Options of every command."""

    function: ClassVar[str]

    json: Annotated[bool, Flag] = False
    """Print one JSON object on stdout (progress goes to stderr)."""
    debug: Annotated[bool, Flag] = False
    """Show the traceback of a failure."""


@dataclass(kw_only=True)
class Quickstart(Common):
    """From Python source to a circuit: train a small sparse model, find a circuit in it, draw it."""

    function: ClassVar[str] = "quickstart"
    out: Path = Path("quickstart")
    """Run directory to make; an earlier quickstart there is replaced once this one succeeds."""
    minutes: float = 8.0
    """Minutes of training."""
    seed: int = 0
    open: bool = True
    """Open the page in the browser at the end."""


@dataclass(kw_only=True)
class Train(Common):
    """Train a weight-sparse transformer (or its dense twin) into a run directory."""

    function: ClassVar[str] = "train"
    out: Path
    """Run directory to make, or to go on with."""
    preset: Preset = "nano"
    """Size of model and run; every other option overrides it."""
    resume: Annotated[bool, Flag] = False
    """Go on from the newest checkpoint of --out, with its saved config; an option that contradicts it is an error."""
    dense: Annotated[bool, Flag] = False
    """Zero nothing and use no AbsTopK: the dense baseline."""
    config: Annotated[TrainConfig, Flat] = field(default_factory=TrainConfig)


@dataclass(kw_only=True)
class Eval(Common):
    """Validation loss, L0, alive neurons and kurtosis of a model."""

    function: ClassVar[str] = "evaluate"
    model: Annotated[Path, tyro.conf.Positional]
    data: str | None = None
    """A corpus, as for train; by default what the model was trained on."""
    tokens: int = 65_536
    """Validation tokens to read."""


@dataclass(kw_only=True)
class Generate(Common):
    """Continue a prompt."""

    function: ClassVar[str] = "generate"
    model: Annotated[Path, tyro.conf.Positional]
    prompt: str
    max_new_tokens: int = 64
    temperature: float = 0.0
    """0: always the likeliest token."""
    top_k: int | None = None
    """Sample among this many likeliest tokens."""
    seed: int = 0
    runtime: Literal["model", "sparse"] = "model"
    """sparse: at the cost of the model's nonzeros (docs/inference.md)."""


@dataclass(kw_only=True)
class Tasks(Common):
    """List the tasks, show a task's prompt pairs, or score a model on tasks."""

    function: ClassVar[str] = "tasks"
    name: Annotated[str | None, tyro.conf.Positional] = None
    """A task; all when left out."""
    task_file: Path | None = None
    """A task of your own: a .jsonl file of pairs, or a .py file that makes a Task (docs/tasks.md)."""
    model: Path | None = None
    """Score this model: loss (raw, and calibrated on training pairs as circuits are), pairs in the right order,
    accuracy."""
    corpus: Path | None = None
    """With --model: score it where the Python under this folder asks the task's question (docs/tasks.md)."""
    shortcuts: Annotated[bool, Flag] = False
    """What rules without understanding reach on held-out prompts: one token's presence or count, the last tokens, a
    bag of tokens (up to --n pairs, by default 512)."""
    split: Literal["train", "validation", "held_out"] = "held_out"
    n: int | None = None
    """Pairs: by default 4 to show, 256 to score. With --corpus: most places of each answer."""
    seed: int = 0


@dataclass(kw_only=True)
class Prune(Common):
    """Find the circuit of a task: the smallest set of nodes that holds the target loss."""

    function: ClassVar[str] = "prune"
    model: Annotated[Path, tyro.conf.Positional]
    tasks: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    all: Annotated[bool, Flag] = False
    """All tasks; those that the model cannot do are skipped with the reason. Also writes table.md and
    edges.svg (edges against target loss)."""
    beside: tuple[Path, ...] = ()
    """Other models to prune in the same way, for the same table and plot."""
    task_file: Path | None = None
    """A task of your own: a .jsonl file of pairs, or a .py file that makes a Task (docs/tasks.md)."""
    out: Path | None = None
    """Folder for <task>/circuit.json (<model>/<task>/circuit.json with --beside); by default circuits/ in each
    run directory."""
    target_loss: float = 0.15
    search: int | None = None
    """Trials of a search over eight hyperparameters, per task; the smallest circuit wins. The same command
    goes on with a search that was stopped."""
    workers: str | None = None
    """How many prunings at a time, in processes of their own: of several tasks (by default one per core), with
    --search the trials of a task (by default 1); or ray, for the cluster that RAY_ADDRESS names."""
    config: Annotated[PruneConfig, Flat] = field(default_factory=PruneConfig)


@dataclass(kw_only=True)
class Backups(Common):
    """How many circuits a task has: prune, forbid what was found, prune again (docs/faithfulness.md). Writes
    <task>/backups/<k>/circuit.json, which `view` and `report` take, and beside them backups.json."""

    function: ClassVar[str] = "backups"
    model: Annotated[Path, tyro.conf.Positional]
    task: Annotated[str | None, tyro.conf.Positional] = None
    task_file: Path | None = None
    """A task of your own: a .jsonl file of pairs, or a .py file that makes a Task (docs/tasks.md)."""
    out: Path | None = None
    """Folder for <task>/backups; by default circuits/ in the run directory."""
    target_loss: float = 0.15
    most: int = 8
    """Circuits at most."""
    seeds: int = 3
    """How many seeds of pruning are compared, the first circuit's among them; 1 for none."""
    config: Annotated[PruneConfig, Flat] = field(default_factory=PruneConfig)


@dataclass(kw_only=True)
class Report(Common):
    """The faithfulness card of circuits (docs/faithfulness.md). Writes report.json, .md and .html beside each, but for
    those that ship with the package."""

    function: ClassVar[str] = "report"
    circuits: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Each what `view` takes: a circuit.json, a run directory (all its circuits), or a folder of runs; or a published
    circuit (viz_data.pt), or a folder of those."""
    model: Path | None = None
    """The model; by default the run directory that the circuit lies in."""
    full: Annotated[bool, Flag] = False
    """Also null controls, knockouts, interchange, causal scrubbing, subset ablation, context tests (minutes)."""
    deep: Annotated[bool, Flag] = False
    """All of --full, and what takes longer: an adversary that looks for the worst subset to ablate, and backup
    circuits."""
    corpus: Path | None = None
    """A folder of Python: also try the circuit on the places there that ask the task's question (docs/tasks.md)."""
    seed: int = 0
    """Of the prompts, and of every draw."""


@dataclass(kw_only=True)
class View(Common):
    """Look at circuits and touch them, in a browser on this machine alone."""

    function: ClassVar[str] = "view"
    path: Annotated[Path, tyro.conf.Positional] = Path("quickstart")
    """A circuit.json, a run directory, or a folder of runs; or a published circuit (viz_data.pt), or a folder
    of those."""
    model: Path | None = None
    """The circuits' model, where it is not the run directory around them."""
    bridge: Path | None = None
    """A folder that `bridge` wrote, from the circuits' model to a dense one: the page then steers that one from the
    circuits. By default the path itself, if it is such a folder."""
    dense: Path | None = None
    """Where the bridge's dense model is by now; by default where it was."""
    port: int | None = None
    """Loopback port: by default 8765, or the next that is free; 0 picks any."""
    allow_host: tuple[str, ...] = ()
    """Names of proxies that the page may be reached under, as hub.example.org: those who can reach them can use it."""
    open: bool = True
    """Open the browser."""


@dataclass(kw_only=True)
class Models(Common):
    """List the models that ship with the package. Every command takes one as pretrained:NAME, as it takes a run
    directory."""

    function: ClassVar[str] = "models"
    name: Annotated[str | None, tyro.conf.Positional] = None
    """Show this one: how it was made, what it does, its circuits."""


@dataclass(kw_only=True)
class Convert(Common):
    """Write a model in another format: native, openai (the released format) or hf (Hugging Face). Or write a
    published circuit (viz_data.pt) as a circuit.json."""

    function: ClassVar[str] = "convert"
    source: Annotated[str, tyro.conf.Positional]
    """A model directory of any of these formats, a released name (csp_yolo2), or hf:OWNER/NAME; or a published
    circuit, a viz_data.pt."""
    destination: Annotated[Path, tyro.conf.Positional]
    """A folder that is new or empty; for a circuit, the JSON file to write."""
    to: Literal["native", "openai", "hf"]
    """A circuit can be written as native alone."""
    model: str | None = None
    """With a circuit: the model that it was found in (directory or name), for the weights of its edges."""
    data: str | None = None
    """With a circuit and --model: a corpus, as for train; other nodes are frozen at their means over it, and
    the circuit can be run."""


@dataclass(kw_only=True)
class Export(Common):
    """Write a circuit for others: as a Python file that runs it, as JSON, as a graph, as a graph of heads and MLPs for
    the Mechanistic Interpretability Benchmark, or as a picture (docs/programs.md, docs/how/elsewhere.md)."""

    function: ClassVar[str] = "export"
    circuit: Annotated[Path, tyro.conf.Positional]
    """A circuit.json, or a run directory with --task."""
    to: Literal["python", "json", "graphml", "mib", "svg", "png"]
    out: Path
    """The file to write; of mib, .json or .pt."""
    task: str | None = None
    """Which of a run directory's circuits."""
    readable: Annotated[bool, Flag] = False
    """With --to python: what the circuit does, in the fewest words that decide as it does on held-out prompts."""
    model: Path | None = None
    """The model; by default the run directory that the circuit lies in."""


@dataclass(kw_only=True)
class Edit(Common):
    """Surgery: a model without some circuits, or with nothing but some circuits, as an ordinary model with an audit
    of what else changed (docs/bridges.md)."""

    function: ClassVar[str] = "edit"
    model: Annotated[Path, tyro.conf.Positional]
    remove: tuple[str, ...] = ()
    """Circuits to disable: their nodes carry their means for good. Each a path, or the task of a circuit in the
    model's run directory."""
    keep: tuple[str, ...] = ()
    """Circuits to keep: all else carries its mean for good."""
    spare: tuple[str, ...] = ()
    """With --remove: circuits whose nodes stay, also where a removed one has them too."""
    out: Path
    """A folder that is new or empty."""
    data: str | None = None
    """A corpus for the audit, as for train; by default what the model was trained on."""
    tokens: int = 65_536
    """Validation tokens of the audit."""
    pairs: int = 256
    """Held-out prompt pairs of each task."""


@dataclass(kw_only=True)
class Bridge(Common):
    """Couple a sparse model to a frozen dense one of the same tokenizer by an encoder and a decoder at every sublayer
    boundary, or at some of models of different depth (docs/bridges.md). Writes bridge.json, bridge.safetensors and the
    trained sparse model, in sparse/."""

    function: ClassVar[str] = "bridge"
    dense: Annotated[Path, tyro.conf.Positional]
    """A model of ours, in any format that convert writes, or a GPT-2 directory as transformers saves it; it stays as it
    is and is not copied."""
    sparse: Annotated[Path | None, tyro.conf.Positional] = None
    """The sparse model to begin with."""
    preset: Preset | None = None
    """Instead of SPARSE: a new one of this preset's width and density, with the dense model's depth, vocabulary and
    tokenizer, its weights at random. Give --data, and a --sparse-lr for a model that is to learn from nothing."""
    out: Path
    resume: Annotated[bool, Flag] = False
    """Go on from the newest checkpoint of --out, with its saved config."""
    data: str | None = None
    """A corpus, as for train; by default what the sparse model was trained on."""
    config: Annotated[BridgeConfig, Flat] = field(default_factory=BridgeConfig)


@dataclass(kw_only=True)
class Steer(Common):
    """Steer the dense model of a bridge from nodes of its sparse one: the counterfactual answer's probability against
    strength, beside random nodes, random directions and the difference of the dense model's means."""

    function: ClassVar[str] = "steer"
    bridge: Annotated[Path, tyro.conf.Positional]
    """A folder that `bridge` wrote."""
    task: str
    node: tuple[str, ...] = ()
    """Nodes that read the residual stream: LAYER.attn.act_in.I, LAYER.mlp.act_in.I or final_resid.I."""
    circuit: Path | None = None
    """All such nodes of this circuit of the sparse model, together."""
    toward: Literal["left", "right"] = "right"
    """The side whose answer is to be given."""
    strengths: tuple[float, ...] = STRENGTHS
    dense: Path | None = None
    """Where the dense model is by now; by default where it was."""
    out: Path | None = None
    """A folder for steering.json and steering.png; by default nothing is written."""
    pairs: int = 32
    """Held-out prompt pairs."""
    controls: int = 8
    """Draws of random nodes, and of random directions."""
    seed: int = 0


@dataclass(kw_only=True)
class Plot(Common):
    """Draw the curves of one or more runs: loss, density, L0, learning rate, alive neurons, speed."""

    function: ClassVar[str] = "plot"
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    out: Path = Path("plot.png")
    """A .png, or an .html page (offline; curves can be read off and runs hidden)."""
    x: Literal["steps", "tokens", "minutes"] = "steps"
    """The horizontal axis."""


@dataclass(kw_only=True)
class Bench(Common):
    """Time the kernels, the training step and inference against named baselines, interleaved in one run."""

    function: ClassVar[str] = "bench"
    name: Annotated[
        Literal["abstopk", "project", "sparse-linear", "train-step", "train-scale", "decode", "prefill", "decode-scale"]
        | None,
        tyro.conf.Positional,
    ] = None
    """One benchmark; all when left out."""
    rounds: int | None = None
    """Interleaved rounds; figures are medians. By default 15; 5 for decode and prefill unless they are full."""
    full: bool = False
    """decode and prefill with all densities and baselines, which takes several minutes; by default about one."""


@dataclass(kw_only=True)
class Reproduce(Common):
    """Measure the paper's claims at a scale that fits, each with a verdict: reproduced, partly, not, or cannot be said.
    Writes a JSON file a claim and their page, README.md; what is there for the same models is not measured again."""

    function: ClassVar[str] = "reproduce"
    claims: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Claims; all when left out."""
    untrained: Annotated[bool, Flag] = False
    """Those alone that train no model."""
    list: Annotated[bool, Flag] = False
    """List them: what the paper says, what is measured, and about how long that takes."""
    out: Path = Path("claims")
    """Folder for the results and their page."""
    model: tuple[str, ...] = ()
    """Models to measure instead of those that ship; claims that train their own are left as they are."""
    again: Annotated[bool, Flag] = False
    """Measure also what is there already."""
    draw: Annotated[bool, Flag] = False
    """Measure nothing: draw the page from the results that are there."""
    scale: float = 1.0
    """Factor on prompts and steps of training (of pruning too, above 1): below 1 quicker and rougher."""
    seeds: int = 3
    """Of claims that train: seeds, counted from --seed."""
    seed: int = 0


COMMANDS: dict[str, type[Common]] = {
    "quickstart": Quickstart,
    "train": Train,
    "eval": Eval,
    "generate": Generate,
    "tasks": Tasks,
    "prune": Prune,
    "backups": Backups,
    "report": Report,
    "view": View,
    "models": Models,
    "convert": Convert,
    "export": Export,
    "bridge": Bridge,
    "steer": Steer,
    "edit": Edit,
    "plot": Plot,
    "reproduce": Reproduce,
    "bench": Bench,
}
DESCRIPTION = "Train transformers whose weights are almost all zero, and find, prove and look at their circuits."
LENGTHS = ("steps", "tokens", "minutes")


def parse(argv: list[str]) -> Common:
    """The command that argv asks for. Exits with 0 after help or version, with 2 for a wrong use."""
    if not argv or argv[0] in ("-h", "--help"):
        _say(overview())
        raise SystemExit(0 if argv else 2)
    if argv[0] == "--version":
        _say(f"sparsecircuits {__version__}")
        raise SystemExit(0)
    if argv[0] not in COMMANDS:
        _refuse(no_such("no command", argv[0], COMMANDS) + " (--help)")
    kind, rest = COMMANDS[argv[0]], argv[1:]
    named = option_value(rest, "preset") if kind is Train else None
    if named is not None and named not in PRESETS:
        _refuse(no_such("no preset", named, PRESETS))
    saved = saved_config_of(rest) if kind is Train and "resume" in _given(rest) else None
    default = {"default": _train_default(rest, saved)} if kind is Train else {}
    command = tyro.cli(kind, args=rest, prog=f"sparsecircuits {argv[0]}", **default)  # type: ignore[call-overload]
    if isinstance(command, Train) and saved is not None:
        require_agreement(saved, command.config, _given(rest))
    return _located(command)


def _located(command: Common) -> Common:
    """The command with the folder for each pretrained:NAME among its paths."""

    def at(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(at, value))
        return folder_of(str(value)) if isinstance(value, Path) and is_pretrained(value) else value

    changed = {f.name: at(getattr(command, f.name)) for f in dataclasses.fields(command)}
    return dataclasses.replace(command, **changed)  # type: ignore[arg-type]


def overview() -> str:
    """The page that --help prints."""
    width = max(map(len, COMMANDS))
    lines = [DESCRIPTION, "", "usage: sparsecircuits COMMAND [OPTIONS]", "", "commands:"]
    for name, kind in COMMANDS.items():
        # Cleaned, because Python strips the indentation of docstrings itself from 3.13 on.
        words = inspect.cleandoc(kind.__doc__ or "").replace("\n", "\n" + " " * (width + 4))
        lines.append(f"  {name:<{width}}  {words}")
    lines += [
        "",
        "Begin with `sparsecircuits quickstart`. Each command explains itself with --help, prints one JSON",
        "object with --json, and exits with 0, with 2 for a wrong use, or with 1 for a failure.",
    ]
    return "\n".join(lines)


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _given(rest: list[str]) -> set[str]:
    """Names of the options on the command line, in their written form."""
    return {word.split("=", 1)[0].lstrip("-").replace("_", "-") for word in rest if word.startswith("--")}


def _train_default(rest: list[str], saved: TrainConfig | None) -> Train:
    """Defaults of `train`: those of the preset that the arguments name, or what a resumed run was started with."""
    given, name = _given(rest), option_value(rest, "preset") or "nano"
    config = preset(name)
    if saved is not None and "preset" not in given:
        config = saved
    if given & set(LENGTHS):
        config = dataclasses.replace(config, steps=None, tokens=None, minutes=None)
    if "dense" in given:
        config = dense_twin(config)
    return Train(out=tyro.MISSING, preset=name, config=config)  # type: ignore[arg-type]
