"""Write what an image's root folder, or a lock file, contains as CycloneDX JSON: `python -m infra.sbom ROOT`.

Of a folder, Python distributions by their metadata in /opt, and Debian packages by dpkg's status; of a file, what it
locks.
"""

import re
import sys
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

__all__ = ["components", "sbom"]

_LOCKED = re.compile(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\\n]+)")


def components(root: Path) -> Iterator[PackageURL]:
    """Yield name and version of everything that was installed, in no order."""
    if root.is_file():
        for name, version in _LOCKED.findall(root.read_text()):
            yield PackageURL("pypi", name=name.lower(), version=version)
        return
    places = [*map(str, root.glob("opt/headwater/lib/python*/site-packages")), str(root / "opt/function")]
    for found in distributions(path=places):
        yield PackageURL("pypi", name=found.metadata["Name"].lower(), version=found.version)
    status = root / "var/lib/dpkg/status"
    for paragraph in status.read_text().split("\n\n") if status.exists() else ():
        fields = Parser().parsestr(paragraph, headersonly=True)
        if fields["Status"] == "install ok installed":
            yield PackageURL("deb", "debian", fields["Package"], fields["Version"], {"arch": fields["Architecture"]})


def sbom(root: Path) -> str:
    """Return one sorted document; the same content gives the same components."""
    listed = Bom()
    for url in sorted(components(root)):
        text = url.to_string()
        kind = ComponentType.LIBRARY
        listed.components.add(Component(name=url.name, version=url.version, purl=url, bom_ref=text, type=kind))
    return JsonV1Dot6(listed).output_as_string(indent=1)


if __name__ == "__main__":
    sys.stdout.write(sbom(Path(sys.argv[1])) + "\n")
