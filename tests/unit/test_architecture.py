"""The import graph: no arrow points up, no modules import one another in a circle, and few import the import root."""

import ast
import gzip
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import grimp
import pytest

LAYERS = (
    ("headwater.__main__",),
    ("headwater.commands",),
    ("headwater.serving.api",),
    ("headwater.serving.console",),
    ("headwater.serving",),
    ("headwater.testing",),
    ("headwater.producers", "headwater.processors"),
    ("headwater.sinks",),
    ("headwater",),
)
"""From top to bottom. What is in no room above is the shared core: a new module of `headwater/` is at the bottom."""

ROOT = Path(__file__).parents[2]
OURS = ("headwater", "sinks", "processors", "producers", "serving", "commands", "infra", "bench")
"""The folders whose classes have names of their own; `headwater/` without its links to the others."""
APART = ("infra.", "bench.")
"""What is no part of the package."""

Graph = Mapping[str, Set[str]]


@pytest.fixture(scope="module")
def imports() -> Graph:
    """What each module of ours imports of ours, at any depth of its code; the import root names its own users."""
    found = grimp.build_graph("headwater", cache_dir=None)
    modules = found.modules - {"headwater"}
    return {one: found.find_modules_directly_imported_by(one) for one in modules}


def room(module: str) -> tuple[int, str]:
    """The layer and the room in it of a module."""
    for layer, rooms in enumerate(LAYERS):
        for one in rooms:
            if module == one or module.startswith(f"{one}."):
                return layer, one
    raise AssertionError(module)


def upward(imports: Graph) -> list[str]:
    """The arrows that point to a higher layer, or to another room of the same one."""
    found = []
    for module, imported in imports.items():
        layer, mine = room(module)
        for other in imported - {"headwater"}:
            above, theirs = room(other)
            if above < layer or (above == layer and theirs != mine):
                found.append(f"{module} -> {other}")
    return sorted(found)


def circles(imports: Graph) -> list[list[str]]:
    """The groups of modules of which each reaches every other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for other in imports.get(module, set()) - {"headwater"}:
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or module in imports.get(module, ()):
                found.append(sorted(group))

    for module in imports:
        if module not in index:
            visit(module)
    return found


def modules(folder: str) -> Iterable[Path]:
    """The modules of a folder at the top, each once: links are not followed."""
    return (one for one in (ROOT / folder).rglob("*.py") if not any(above.is_symlink() for above in one.parents))


def repeated_classes(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """The class names that stand in more than one place, by name; a leading underscore makes no other name."""
    found = defaultdict(list)
    for place, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(f"{place}:{node.lineno}")
    return {name: places for name, places in found.items() if len(places) > 1}


def test_no_class_name_stands_twice() -> None:
    """A name in an error or a log means one class; ports with the same meaning are one in `headwater.stores`."""
    sources = {str(one.relative_to(ROOT)): one.read_text() for folder in OURS for one in modules(folder)}
    assert len(sources) > 300
    assert repeated_classes(sources) == {}


def borrowed_names(sources: Mapping[str, str]) -> list[str]:
    """The imports of a name from a module that has only imported it itself; the face of a package may do that."""
    trees = {place.removesuffix(".py").replace("/", "."): ast.parse(source) for place, source in sources.items()}
    trees = {
        name if name.startswith(("headwater.", *APART)) else f"headwater.{name}": one for name, one in trees.items()
    }
    taken = {
        name: {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        for name, tree in trees.items()
    }
    return sorted(
        f"{name}: {alias.name} from {node.module}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in taken
        for alias in node.names
        if alias.name in taken[node.module]
    )


def test_a_name_is_imported_from_where_it_is_defined() -> None:
    """So that one search finds all users of it, and moving a function moves no others."""
    assert (
        borrowed_names({str(one.relative_to(ROOT)): one.read_text() for folder in OURS for one in modules(folder)})
        == []
    )


def mapped_rooms(text: str) -> list[str]:
    """The rooms in the first column of the map's tables, in their order; those with a slash or an ending inside."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [one for row in rows for one in re.findall(r"`(\w+/\w[\w/.]*)`", row)]


def test_no_log_line_has_a_field_of_the_record_s_own() -> None:
    """`logging` raises KeyError for one, and only once its level is on: in services, not in tests."""
    own = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    wrong = [
        f"{path}:{node.lineno}: {key.value}"
        for folder in OURS
        for path in modules(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant) and key.value in own
    ]
    assert wrong == []


def test_the_map_names_each_room_once() -> None:
    """A newcomer finds every folder and module of a layer in docs/architecture.md; commands stand there as a whole."""
    mapped = mapped_rooms((ROOT / "docs" / "architecture.md").read_text())
    rooms = {
        f"{one.relative_to(ROOT)}{'/' if one.is_dir() else ''}"
        for folder in ("headwater", "sinks", "processors", "producers", "serving")
        for one in (ROOT / folder).iterdir()
        if (one.suffix == ".py" or one.is_dir()) and not one.is_symlink() and not one.name.startswith(("_", "."))
    }
    assert sorted(rooms - set(mapped)) == []
    assert [one for one in mapped if not (ROOT / one).exists()] == []
    assert sorted({one for one in mapped if mapped.count(one) > 1}) == []


def test_no_arrow_points_up(imports: Graph) -> None:
    """Commands use services, services use processors and producers, these use sinks, and all use the core."""
    assert upward(imports) == []


def test_no_modules_import_one_another_in_a_circle(imports: Graph) -> None:
    """Each module can be read, tested and loaded after those that it imports, also within functions."""
    assert circles(imports) == []


def test_the_import_root_is_for_users(imports: Graph) -> None:
    """Only examples, which users read, and the module form of the command import it."""
    users = {module for module, imported in imports.items() if "headwater" in imported}
    assert {one for one in users if not one.startswith("headwater.processors.examples.")} <= {"headwater.commands"}


def test_the_graph_is_whole(imports: Graph) -> None:
    """Every room is in it: the links of `headwater/` are followed."""
    assert {room(module)[1] for module in imports} == {one for rooms in LAYERS for one in rooms}
    assert len(imports) > 250


def test_the_checks_can_fail() -> None:
    """An arrow up, one across, circles, a name that stands twice and one from elsewhere are found."""
    planted = {
        "headwater.ledger": {"headwater.sinks.lake"},
        "headwater.producers.a": {"headwater.processors.b"},
        "headwater.processors.b": {"headwater.sinks.c"},
        "headwater.sinks.lake": {"headwater.sinks.c"},
        "headwater.sinks.c": {"headwater.sinks.d"},
        "headwater.sinks.d": {"headwater.sinks.lake"},
        "headwater.x": {"headwater.y"},
        "headwater.y": {"headwater.x"},
    }
    assert upward(planted) == [
        "headwater.ledger -> headwater.sinks.lake",
        "headwater.producers.a -> headwater.processors.b",
    ]
    assert repeated_classes({"a.py": "class A: ...\nclass B: ...", "b.py": "class _A: ..."}) == {
        "A": ["a.py:1", "b.py:1"]
    }
    lent = {
        "headwater/a.py": "from x import B",
        "sinks/c.py": "from headwater.a import B",
        "headwater/d/__init__.py": "",
    }
    assert borrowed_names(lent) == ["headwater.sinks.c: B from headwater.a"]
    assert sorted(circles(planted)) == [
        ["headwater.sinks.c", "headwater.sinks.d", "headwater.sinks.lake"],
        ["headwater.x", "headwater.y"],
    ]


def long_parts(path: str, text: str) -> list[str]:
    """A module of more than 400 lines, and each function of more than 40, its docstring aside."""
    found = [f"{path} has {lines} lines"] if (lines := text.count("\n")) > 400 else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            if body and (lines := (node.end_lineno or 0) - body[0].lineno + 1) > 40:
                found.append(f"{path}: {node.name} has {lines} lines")
    return found


def test_each_module_and_function_is_one_room() -> None:
    """400 lines a module, tests too, and 40 a function; a test or a stack that tells one story may be longer."""
    files = [path for folder in (*OURS, "tests") for path in (ROOT / folder).rglob("*.py")]
    found = {fault for path in files for fault in long_parts(str(path.relative_to(ROOT)), path.read_text())}
    assert {one for one in found if not (one.startswith(("tests/", "infra/", "bench/")) and ": " in one)} == set()


def test_a_long_module_and_a_long_function_are_found() -> None:
    line = "    x = 1\n"
    assert long_parts("m", "x = 1\n" * 400) == []
    assert long_parts("m", "x = 1\n" * 401) == ["m has 401 lines"]
    assert long_parts("m", 'def f():\n    """D."""\n' + line * 40) == []
    assert long_parts("m", "def f():\n" + line * 41) == ["m: f has 41 lines"]


@pytest.mark.parametrize("data", [gzip.compress(b"text")])
def test_a_test_is_not_named_after_bytes(data: bytes, request: pytest.FixtureRequest) -> None:
    """These have the time in them: two workers that collect in different seconds would have different tests."""
    assert data
    assert request.node.name == "test_a_test_is_not_named_after_bytes[data]"


def unexplained(path: str, text: str) -> list[str]:
    """The lines that silence a check and do not say why, behind the rule's name."""
    silent = re.compile(r"#\s*type:\s*ignore(?!\[[\w, -]+\]  # \w)|#\s*noqa(?!: [A-Z]+\d+(, [A-Z]+\d+)* \(.+\))")
    return [f"{path}:{number}" for number, line in enumerate(text.splitlines(), 1) if silent.search(line)]


def test_what_silences_a_check_says_why() -> None:
    files = [path for folder in (*OURS, "tests") for path in (ROOT / folder).rglob("*.py")]
    found = [one for path in files for one in unexplained(str(path.relative_to(ROOT)), path.read_text())]
    assert found == []


def test_a_check_that_is_silenced_without_a_reason_is_found() -> None:
    ignore, silence = "x = f()  # type: " + "ignore", "x = f()  # no" + "qa"
    for text in (ignore, f"{ignore}[arg-type]", silence, f"{silence}: E501", f"{silence}: E501, N803"):
        assert unexplained("m", f"\n{text}\n") == ["m:2"]
    for text in (f"{ignore}[arg-type]  # it fits", f"{silence}: E501, N803 (names of others)", "x = 1"):
        assert unexplained("m", text) == []
