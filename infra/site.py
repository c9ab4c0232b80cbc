"""Write the pages of the documentation site that come from code: a hook of MkDocs, which `make site` runs.

The API's page is made of docstrings, the CLI's of the commands' help, and each notebook is a page of its cells, with
what they gave where `infra.notebooks` has run it as it is. They are never files: a page that is made anew with each
build cannot be out of date.
"""

import ast
import base64
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.structure.files import File, Files

from headwater.commands import app
from infra.notebooks import ran

ROOT = Path(__file__).parents[1]
MODULES = ("headwater", "headwater.formats", "headwater.testing")


def on_config(config: Any) -> Any:
    """List the pages of a folder where the menu says `folder/*`: MkDocs calls this first."""
    config.nav = listed(config.nav)
    return config


def listed(entry: Any) -> Any:
    """Return a part of the menu with its folders written out."""
    if isinstance(entry, str) and entry.endswith("/*"):
        return [f"{entry[:-1]}{path.name}" for path in sorted((ROOT / "docs" / entry[:-2]).glob("*.md"))]
    if isinstance(entry, dict):
        return {name: listed(one) for name, one in entry.items()}
    return [listed(one) for one in entry] if isinstance(entry, list) else entry


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages: MkDocs calls this when it has found those of docs."""
    pages = {"reference/api.md": api(), "reference/cli.md": cli()}
    pages |= {f"notebooks/{path.stem}.md": notebook(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, body in figures(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=body))
    return files


def api() -> str:
    """Return the page of every public name, with its signature and its docstring."""
    parts = ["# API reference", "Everything that a program imports, by the module that it is imported from."]
    for module in MODULES:
        made = import_module(module)
        parts += [f"## {module}", markdown(inspect.getdoc(made) or "")]
        for name in made.__all__:
            if not name.startswith("__"):
                parts += described(name, getattr(made, name))
    return "\n\n".join(parts) + "\n"


def described(name: str, value: Any) -> Iterator[str]:
    """Yield what is said of one name: a class with its fields and methods, a function, or a constant."""
    yield f"### {name} {{ #{name} }}"
    if not callable(value):
        yield f"`{value!r}`"
        return
    yield signature(name, value)
    yield markdown(inspect.getdoc(value) or "")
    if not inspect.isclass(value):
        return
    rows = [f"| `{field}` | {cell(text)} |" for field, text in fields(value)]
    if rows:
        yield "\n".join(["| field | what it is |", "| --- | --- |", *rows])
    for method, found in vars(value).items():
        kind = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        text = inspect.getdoc(kind)
        if not method.startswith("_") and text and (inspect.isfunction(kind) or isinstance(kind, property)):
            yield f"#### {name}.{method} {{ #{name}.{method} }}"
            if inspect.isfunction(kind):
                yield signature(f"{name}.{method}", kind)
            yield markdown(text)


def signature(name: str, value: Any) -> str:
    """Return how it is called, on a line for each argument where it is long."""
    try:
        given = inspect.signature(value)
    except ValueError:
        return ""
    shown = [one for one in given.parameters.values() if one.name not in ("self", "cls")]
    given = given.replace(return_annotation=given.empty) if inspect.isclass(value) else given
    name = f"await {name}" if inspect.iscoroutinefunction(value) else name
    line = typed(f"{name}{given.replace(parameters=shown)}")
    if len(line) > 90:
        texts = [str(one) for one in shown]
        named = [at for at, one in enumerate(shown) if one.kind is one.KEYWORD_ONLY]
        if named and not any(one.kind is one.VAR_POSITIONAL for one in shown):
            texts.insert(named[0], "*")
        back = typed(str(given.replace(parameters=[])))[2:]
        line = typed(f"{name}(\n    {f',{chr(10)}    '.join(texts)},\n)") + back
    return f"```python\n{line}\n```"


def typed(text: str) -> str:
    """Return a signature with types by their last names, and without the quotes of those that come later."""
    text = re.sub(r"\b(?!asyncio\.)(?:[a-z_]\w*\.)+([A-Z]\w*)", r"\1", text)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def fields(kind: type) -> Iterator[tuple[str, str]]:
    """Yield a class's fields that have a docstring behind them."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError):
        return
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field), " ".join(str(text.value.value).split())


def markdown(docstring: str) -> str:
    """Return a docstring with its examples fenced, and nothing in its prose taken for HTML."""
    out = []
    for block in re.split(r"\n\n+", docstring):
        if block.startswith(">>>"):
            out.append(f"```pycon\n{block}\n```")
        else:
            out.append(block if block.startswith("    ") else plain(block))
    return "\n\n".join(out)


def plain(text: str) -> str:
    """Return prose in which `<` and `*` are themselves, but for what stands between backquotes."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", piece.replace("<", "&lt;"))
        for piece in pieces
    )


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return plain(" ".join(text.split())).replace("|", "\\|")


def cli() -> str:
    """Return the page of every command."""
    parts = ["# Commands", "`headwater COMMAND --help` says the same."]
    for name, command in commands("headwater", typer.main.get_command(app)):
        parts += [f"## {name}", markdown(inspect.cleandoc(command.help or ""))]
        rows = [row for one in command.params if (row := parameter(one))]
        if rows:
            parts.append("\n".join(["| argument or option | default | |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its whole name."""
    if not hasattr(command, "commands") or (command.invoke_without_command and command.params and " " in name):
        yield name, command
    for sub, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield from commands(f"{name} {sub}", one)


def parameter(one: Any) -> str:
    """Return the row of an argument or option; empty for what is not shown."""
    if getattr(one, "hidden", False) or one.name == "help":
        return ""
    name = one.name.upper() if one.param_type_name == "argument" else ", ".join([*one.opts, *one.secondary_opts])
    default = "" if one.default is None or callable(one.default) else str(one.default)
    needed = "required" if one.required else f"`{default}`" if default not in ("", "False", "()", "[]") else ""
    return f"| `{name}` | {needed} | {cell(getattr(one, 'help', '') or '')} |"


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook, with what they gave when it was run as it is now, if it was."""
    made = ran(path)
    found: list[dict[str, Any]] = json.loads((made if made.exists() else path).read_text(encoding="utf-8"))["cells"]
    return found


def notebook(path: Path) -> str:
    """Return the page of a notebook: its cells, each with what it gave."""
    parts, number = [], 0
    for one in cells(path):
        source = "".join(one["source"])
        parts.append(source if one["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in one.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                parts.append(f"![a figure]({path.stem}-{number}.png)")
                number += 1
            else:
                parts.append(given(output))
    parts.append(f"To run it: `jupyter lab notebooks/{path.name}`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def given(output: dict[str, Any]) -> str:
    """Return what a cell printed, or its last value: a table as HTML, all else as text. Warnings are left out."""
    data = output.get("data", {})
    if "text/html" in data:
        lines = (line.strip() for line in "".join(data["text/html"]).splitlines())
        return re.sub(r"<style.*?</style>", "", "".join(lines), flags=re.S)
    text = "".join(data.get("text/plain", output.get("text", "") if output.get("name") == "stdout" else ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def figures(path: Path) -> dict[str, bytes]:
    """Return the figures of a notebook by the names that its page has for them."""
    outputs = [one.get("data", {}) for cell in cells(path) for one in cell.get("outputs", ())]
    images = [one["image/png"] for one in outputs if "image/png" in one]
    return {f"{path.stem}-{number}.png": base64.b64decode("".join(body)) for number, body in enumerate(images)}
