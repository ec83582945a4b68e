"""The `reproduce` command: claims with their verdicts."""

from typing import Any

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.show import print_json, print_table, print_text, progress
from sparsecircuits.errors import UserError
from sparsecircuits.files import write_text


def reproduce(command: args.Reproduce) -> None:
    """List claims, or measure them and draw their page."""
    from sparsecircuits.claims.catalogue import CLAIMS
    from sparsecircuits.claims.claim import Setting, Subject
    from sparsecircuits.claims.page import PAGE_NAME, page
    from sparsecircuits.claims.reproducing import chosen, read_results, reproduce

    claims = [claim for claim in chosen(command.claims) if not (command.untrained and claim.trains)]
    if command.list:
        _list(claims, command.json)
        return
    if command.scale <= 0 or command.seeds < 1:
        raise UserError("--scale must be positive, and --seeds at least 1")
    if not command.draw:
        with progress("claims") as update:
            done: list[Any] = []
            subjects = tuple(map(Subject, command.model))
            tell = lambda details: update(len(done) / len(claims), f"{claims[len(done)].name}: {details}")  # noqa: E731
            setting = Setting(subjects, command.seed, command.seeds, command.scale, tell)
            for result in reproduce(claims, command.out, setting, again=command.again):
                done.append(result)
                update(len(done) / len(claims), result.claim)
    results = read_results(command.out)
    write_text(command.out / PAGE_NAME, page(CLAIMS, results))
    records = []
    for claim in claims:
        if claim.name in results:
            verdict = claim.judge(results[claim.name].rows)
            records.append(
                {**results[claim.name].model_dump(mode="json"), "verdict": verdict.word, "reason": verdict.reason}
            )
    if command.json:
        print_json({"claims": records, "page": str(command.out / PAGE_NAME)})
        return
    rows = [[record["claim"], record["verdict"], record["reason"], record["seconds"]] for record in records]
    print_table("claims of Gao et al. 2025", ["claim", "verdict", "why", "seconds"], rows, right=(3,))
    print_text(str(command.out / PAGE_NAME))


def _list(claims: list[Any], as_json: bool) -> None:
    if as_json:
        fields = ("name", "where", "says", "rule", "differs", "models", "minutes", "trains", "version")
        print_json({"claims": [{name: getattr(claim, name) for name in fields} for claim in claims]})
        return
    rows = [
        [claim.name, claim.where, claim.says, ", ".join(claim.models) or "trains", claim.minutes] for claim in claims
    ]
    print_table("claims", ["claim", "where", "the paper says", "models", "minutes"], rows, right=(4,))
