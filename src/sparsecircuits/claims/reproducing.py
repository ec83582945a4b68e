"""Run claims: what was measured on the same models in the same way is not measured again."""

import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sparsecircuits import __version__
from sparsecircuits.claims.catalogue import CLAIMS
from sparsecircuits.claims.claim import Claim, Setting, Subject
from sparsecircuits.claims.schema import ModelUsed, Result
from sparsecircuits.errors import UserError, no_such
from sparsecircuits.files import require_writable
from sparsecircuits.seeds import checked_seed
from sparsecircuits.training.hardware import CPU_FLAGS

FILE = "{}.json"


def chosen(names: Sequence[str]) -> list[Claim]:
    """Claims by name; all when none is named. Raises UserError that lists them."""
    for name in names:
        if name not in CLAIMS:
            raise UserError(no_such("no claim", name, CLAIMS))
    return [CLAIMS[name] for name in dict.fromkeys(names)] or list(CLAIMS.values())


def result_path(folder: Path, claim: str) -> Path:
    """Where a claim's result lies."""
    return folder / FILE.format(claim)


def read_results(folder: Path) -> dict[str, Result]:
    """The results in a folder by claim, in the order of the page; those of claims that are no longer there are left
    out. Raises UserError for a damaged one."""
    paths = {name: result_path(folder, name) for name in CLAIMS}
    return {name: Result.load(path) for name, path in paths.items() if path.exists()}


def reproduce(claims: Sequence[Claim], folder: Path, setting: Setting, *, again: bool = False) -> Iterator[Result]:
    """Measure claims one after the other and write each one's file as it is done; yields them all, also those that
    were there already: for the same version of the claim, the same models by content, seed, seeds and scale.

    setting: its subjects are measured instead of each claim's own models, if it has any; claims that train have none.
    again: measure what is there too. Raises UserError for a model or a folder that cannot be used.
    """
    checked_seed(setting.seed)
    require_writable(folder)
    sources = commit()  # now: what runs was read by now, and may be changed while it runs
    for claim in claims:
        own = tuple(Subject(name) for name in claim.models)
        subjects = (setting.subjects or own) if claim.models else ()
        here = Setting(subjects, setting.seed, setting.seeds, setting.scale, setting.tell)
        path = result_path(folder, claim.name)
        found = Result.load(path) if path.exists() and not again else None
        if found is None or not is_of(found, claim, here):
            found = measured(claim, here, sources)
            found.save(path)
        yield found


def is_of(result: Result, claim: Claim, setting: Setting) -> bool:
    """Whether a result is what measuring a claim in a setting would bring."""
    return (
        (result.claim, result.version) == (claim.name, claim.version)
        and (result.seed, result.scale) == (setting.seed, setting.scale)
        and (not claim.trains or result.seeds == setting.seeds)
        and [model.content_hash for model in result.models] == [subject.content_hash for subject in setting.subjects]
    )


def measured(claim: Claim, setting: Setting, sources: str | None) -> Result:
    """One claim's measurement. sources: the commit that runs."""
    began = time.perf_counter()
    used = tuple(ModelUsed(name=s.name, content_hash=s.content_hash) for s in setting.subjects)
    rows = claim.measure(setting)
    return Result(
        claim=claim.name,
        version=claim.version,
        models=used,
        seed=setting.seed,
        seeds=setting.seeds if claim.trains else 1,
        scale=setting.scale,
        program=__version__,
        commit=sources,
        machine=machine(),
        seconds=round(time.perf_counter() - began, 1),
        rows=tuple(rows),
    )


def commit() -> str | None:
    """The commit of the sources that run, with + where they differ from it; None where they are no checkout."""
    sources = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(sources), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", "__init__.py"):  # installed into an environment inside another checkout
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> str:
    """Processor, threads and operating system, in words; and the GPU, if there is one."""
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} thread(s), {platform.system()}, Python {platform.python_version()}{gpu}"
