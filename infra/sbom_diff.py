"""Say what came, went and changed between two bills of materials: `python -m infra.sbom_diff BEFORE.json AFTER.json`.

Both are CycloneDX JSON. Printed is a table in Markdown, for the summary of a workflow; a component is what its package
URL names without its version.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packageurl import PackageURL

__all__ = ["Change", "changes", "table"]

Change = tuple[str, str, str]
"""Component, versions before, versions after; without any, it was not there or is not there any more."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs, by component. Raise ValueError for what is no CycloneDX document."""
    old, new = _versions(before), _versions(after)
    return [
        (name, old.get(name, ""), new.get(name, "")) for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    ]


def table(found: list[Change]) -> Iterator[str]:
    """Yield the lines of a table, or one that says that nothing differs."""
    if not found:
        yield "The components are the same."
        return
    yield from ("| component | before | after |", "| --- | --- | --- |")
    for name, old, new in found:
        yield f"| {name} | {old or 'not there'} | {new or 'not there'} |"


def _versions(document: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(document, Mapping) or document.get("bomFormat") != "CycloneDX":
        raise ValueError("no CycloneDX document")
    found: dict[str, list[str]] = {}
    for component in document.get("components", []):
        url = PackageURL.from_string(component["purl"])
        name = "/".join(part for part in (url.type, url.namespace, url.name) if part)
        found.setdefault(name, []).append(url.version or "")
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def main() -> None:
    """Print the table; exit 1 with one line where a file cannot be read."""
    try:
        before, after = (json.loads(Path(name).read_text()) for name in sys.argv[1:])
        found = changes(before, after)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f"sbom_diff BEFORE.json AFTER.json: {type(error).__name__}: {' '.join(str(error).split())}")
    sys.stdout.writelines(f"{line}\n" for line in table(found))


if __name__ == "__main__":
    main()
