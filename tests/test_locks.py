"""The locked versions are what pyproject allows, each with its hashes, and quickstart's are among the tests'."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"torch", "triton"}  # constraints.txt and the Makefile pin these two


def locked(name):
    """{package: (version, its number of hashes)} of a lock."""
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)(.*(?:\n    --hash.*)*)", text, re.MULTILINE)
    return {canonicalize_name(package): (version, rest.count("--hash=sha256:")) for package, version, rest in entries}


def required(extras):
    """The requirements of the package with extras, extras of its own followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [Requirement(line) for line in project["dependencies"]] if not extras else []
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            one = Requirement(line)
            found += required(sorted(one.extras)) if one.name == project["name"] else [one]
    return found


@pytest.mark.parametrize(("lock", "extras"), [("runtime", []), ("dev", []), ("dev", ["dev"])])
def test_each_requirement_has_a_locked_version_in_its_range(lock, extras):
    versions, needed = locked(lock), required(extras)
    assert len(needed) > 8
    for one in needed:
        if one.name not in ELSEWHERE:
            assert versions[canonicalize_name(one.name)][0] in one.specifier, str(one)


@pytest.mark.parametrize("lock", ["runtime", "dev", "release"])
def test_each_locked_version_has_hashes(lock):
    versions = locked(lock)
    assert len(versions) > 15
    assert all(hashes for _, hashes in versions.values())


def test_quickstart_runs_versions_that_the_tests_run():
    tested = locked("dev")
    assert all(tested[package][0] == version for package, (version, _) in locked("runtime").items())
