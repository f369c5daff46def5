"""How the files of both packages stand to each other."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from recorded import REPOSITORY

PACKAGES = {
    "tracefork_otel": REPOSITORY / "tracefork_otel",
    "tracefork_backend": REPOSITORY / "backend" / "tracefork_backend",
}


PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


def _modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            parts = (package, *file.relative_to(folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _imported(name: str, file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """What the file imports, wherever in it the import stands and whatever it is for."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join((*above, *([node.module] if node.module else [])))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in modules else base


def _graph() -> dict[str, set[str]]:
    """Which files each file imports; to import a module from outside its package runs the package's face."""
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        graph[name] = set()
        for target in _imported(name, file, modules):
            parts = target.split(".")
            above = (".".join(parts[:length]) for length in range(1, len(parts)))
            faces = {face for face in above if not f"{name}.".startswith(f"{face}.")}
            graph[name] |= ({target} | faces) & modules.keys() - {name}
    return graph


def _circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """The groups of files each of which leads to all others of its group."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            fresh = graph[waiting.pop()] - seen
            seen |= fresh
            waiting += fresh
        reached[start] = seen
    groups = {
        tuple(sorted(other for other in seen if name in reached[other]))
        for name, seen in reached.items()
        if name in seen
    }
    return sorted(groups)


def test_no_circle_of_files() -> None:
    """No file leads back to itself, be it for types alone or inside a function."""
    assert _circles(_graph()) == []


def test_a_circle_is_seen() -> None:
    """A circle through a face, and one of two files, are each found."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d", "a"}, "f": {"a"}}
    assert _circles(graph) == [("a", "b", "c"), ("d", "e")]


def _picture() -> dict[str, list[set[str]]]:
    """The layers of each package by the picture; a line that ends in a dot goes on in the next."""
    drawn = PAGE.split("```text")[1].split("```")[0]
    rows = [line.split("│") for line in drawn.splitlines() if "│" in line]
    found: dict[str, list[set[str]]] = {}
    for package, column in zip(PACKAGES, (1, 3), strict=True):
        text = "\n".join(row[column].strip() for row in rows if row[column].strip())
        found[package] = [set(line.split(" · ")) for line in text.replace("·\n", "· ").splitlines()]
    return found


def test_the_picture_has_the_layers_of_the_contracts() -> None:
    """What stands below what is drawn as it is checked."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = {
        one["containers"][0]: [set(layer.split(" : ")) for layer in one["layers"]]
        for one in contracts
        if one["type"] == "layers"
    }
    assert _picture() == layers


def test_the_page_has_every_room() -> None:
    """Each folder and file at the top of a package has its line, and nothing has one that is not there."""
    tables = PAGE.split("## The rooms")[1].split("## ")[0].split("On any machine:")
    for table, folder in zip(tables, PACKAGES.values(), strict=True):
        cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        rooms = {f"{path.name}/" for path in folder.iterdir() if any(path.glob("*.py"))}
        assert sorted(re.findall("`([^`]+)`", " ".join(cells))) == sorted(files | rooms)


def test_the_paths_on_the_page_are_there() -> None:
    """A path is that of one file: of the repository, or of one package."""
    named = set(re.findall(r"`(\w+/[\w/]*\w(?:\.(?:py|sql|md))?)/?`", PAGE))
    below = (REPOSITORY, *PACKAGES.values())
    for name in named:
        assert len([root for root in below if (root / name).exists()]) == 1, name
