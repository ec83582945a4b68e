"""The page of all claims, drawn from the results alone: the paper's figure, ours, and a verdict."""

from collections.abc import Mapping

from sparsecircuits.claims.claim import Claim
from sparsecircuits.claims.schema import Result, Row, Rows, Value, Verdict

PAGE_NAME = "README.md"
HEAD = """# The paper's claims, measured here

Written by `sparsecircuits reproduce` from the JSON files beside it: nothing on this page is typed. The claims are those
of Gao et al. 2025, *Weight-sparse transformers have interpretable circuits* (arXiv 2511.13653), at a scale that
fits a laptop. A verdict follows from the figures by the rule that stands beside it, which was stated before they were
measured (where it was not, that is said); what did not come out stays. `sparsecircuits reproduce NAME`
measures one again.
"""
NOT_RUN = "not run"


def page(claims: Mapping[str, Claim], results: Mapping[str, Result]) -> str:
    """Markdown: a table of verdicts, then each claim with its figures. Claims without a result are there, not run."""
    lines = [HEAD, "| claim | the paper | here | verdict |", "|---|---|---|---|"]
    for name, claim in claims.items():
        found = judged(claim, results.get(name))
        words = ("-", NOT_RUN) if found is None else (found.reason, f"**{found.word}**")
        lines.append(f"| [{name}](#{name}) | {claim.where} | {_plain(words[0])} | {words[1]} |")
    for claim in claims.values():
        lines += ["", *_section(claim, results.get(claim.name))]
    return "\n".join(lines) + "\n"


def judged(claim: Claim, result: Result | None) -> Verdict | None:
    """A claim's verdict on its result; None where there is none."""
    return None if result is None else claim.judge(result.rows)


def _section(claim: Claim, result: Result | None) -> list[str]:
    lines = [f"## {claim.name}", "", f"The paper ({claim.where}): {claim.says}", "", f"Rule: {claim.rule}"]
    if claim.differs:
        lines += ["", f"What differs: {claim.differs}"]
    found = judged(claim, result)
    if result is None or found is None:
        seeds = "three seeds, " if claim.trains else ""
        command = f"`sparsecircuits reproduce {claim.name}`"
        return [*lines, "", f"**Not run.** {command} measures it ({seeds}about {claim.minutes:g} minutes on one core)."]
    lines += ["", f"**{found.word[0].upper()}{found.word[1:]}**: {found.reason}.", ""]
    return [*lines, *table(result.rows), "", provenance(result)]


def table(rows: Rows) -> list[str]:
    """Rows as Markdown; columns in the order in which they first come."""
    if not rows:
        return ["(nothing could be measured)"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {name: any(isinstance(row.get(name), int | float) for row in rows) for name in columns}
    head = ["| " + " | ".join(columns) + " |", "|" + "|".join("---:" if numeric[c] else "---" for c in columns) + "|"]
    return [*head, *("| " + " | ".join(_cell(row, name) for name in columns) + " |" for row in rows)]


def _cell(row: Row, name: str) -> str:
    value = row.get(name)
    return "-" if value is None else _plain(_shown(value))


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"
    return str(value)


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def provenance(result: Result) -> str:
    """Where a result's figures come from, in a line."""
    models = ", ".join(f"{model.name} ({model.content_hash[:8]})" for model in result.models) or "trained for this"
    seeds = f"seeds {result.seed} to {result.seed + result.seeds - 1}" if result.seeds > 1 else f"seed {result.seed}"
    return (
        f"Models: {models}; {seeds}, scale {result.scale:g}; {result.seconds:.0f} s on {result.machine}; version "
        f"{result.program}, commit {result.commit or 'unknown'}."
    )
