"""Build an image of one service without a container engine or registry: buildah over a root made by mmdebstrap.

`python -m infra.image TARGET` builds a target of the Dockerfile below build/images, says what is in it and writes its
SBOM. The base is Debian's own Python in place of the pinned image. Needs Linux, root, buildah and mmdebstrap.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.sbom import components, sbom

__all__ = ["Image", "Store", "unable"]

ROOT = Path(__file__).parent.parent
BASE = "localhost/headwater-base"
_DEBIAN = "python3,python3-venv,python-is-python3,ca-certificates"
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_TRUST = {"/etc/pip.conf": f"[global]\ncert = {_BUNDLE}\n", "/etc/uv/uv.toml": "native-tls = true\n"}
"""The build asks the same package index as this machine does, and trusts whom this machine trusts."""
_READ_ONLY = """set -e
mount --bind "$0" "$0"
mount --bind /dev "$0/dev"
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
mount -o remount,bind,ro "$0"
user="$1"
shift
exec chroot --userspec="$user" "$0" env --chdir=/tmp -i "$@"
"""


def absent() -> str:
    """Return which of the tools is not installed; empty when all are."""
    names = [name for name in ("buildah", "mmdebstrap", "unshare") if shutil.which(name) is None]
    return f"{', '.join(names)} not on PATH" if names else ""


def unable() -> str:
    """Return why nothing can be built here; empty when it can."""
    if absent():
        return absent()
    if os.geteuid() != 0:
        return "not root, which mounts and chroot need"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip()


@dataclass(frozen=True)
class Image:
    """Hold a built image with its root folder mounted; `config` is as the OCI specification names it."""

    root: Path
    digest: str
    config: Mapping[str, Any]

    def command(self, environment: Mapping[str, str], *arguments: str) -> list[str]:
        """Return what runs the entry point as the image's user on a read-only root with an empty /tmp.

        `arguments` replace the image's own. The process is the service itself: signals reach it. Its network is this
        machine's.
        """
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        entry = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        return ["unshare", "--mount", "sh", "-c", _READ_ONLY, str(self.root), self.config["User"], *given, *entry]


class Store:
    """Keep images below a folder, and nothing outside of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._driver = "overlay"
        try:
            self._run("rm", self._run("from", "scratch"))
        except subprocess.CalledProcessError:
            self._driver = "vfs"  # a file system that overlays cannot lie on

    def _run(self, *arguments: str) -> str:
        places = ["--root", str(self._folder / self._driver), "--runroot", str(self._folder / "run")]
        command = ["buildah", *places, "--storage-driver", self._driver, *arguments]
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def _base(self) -> None:
        if self._run("images", "--quiet", "--filter", f"reference={BASE}"):
            return
        debian = self._folder / "debian.tar"
        include = ["--variant=apt", f"--include={_DEBIAN}"]
        subprocess.run(["mmdebstrap", "--quiet", *include, "bookworm", debian], check=True)
        container = self._run("from", "scratch")
        self._run("add", "--quiet", container, str(debian), "/")
        self._run("commit", "--quiet", "--rm", container, BASE)
        debian.unlink()

    def build(self, target: str) -> str:
        """Build an image and return its name. Steps go to stderr."""
        self._base()
        cache = subprocess.run([_uv(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
        mounts = ["--volume", f"{cache}:/var/cache/uv"]
        if _BUNDLE.exists():
            mounts += ["--volume", f"{_BUNDLE.parent}:{_BUNDLE.parent}:ro"]
            for place, text in _TRUST.items():
                (self._folder / Path(place).name).write_text(text)
                mounts += ["--volume", f"{self._folder.resolve() / Path(place).name}:{place}:ro"]
        name = f"localhost/headwater-{target}"
        how = ["--isolation", "chroot", "--network", "host", "--pull-never", "--quiet", *mounts]
        what = ["--build-arg", f"PYTHON={BASE}", "--target", target, "-f", "infra/containers/Dockerfile", "-t", name]
        self._run("build", *how, *what, ".")
        self._run("rmi", "--prune")  # the one that had this name before
        return name

    @contextmanager
    def opened(self, name: str) -> Iterator[Image]:
        """Mount a built image while the context lasts."""
        found = json.loads(self._run("inspect", "--type", "image", name))
        container = self._run("from", "--pull-never", name)
        try:
            yield Image(Path(self._run("mount", container)), found["FromImageDigest"], found["OCIv1"]["config"])
        finally:
            self._run("rm", container)


def _uv() -> Path:
    return Path(sys.executable).with_name("uv")


def main(arguments: Sequence[str]) -> None:
    """Build, list, or write the SBOM."""
    (target,) = arguments
    reason = unable()
    if reason:
        raise SystemExit(f"no image can be built here: {reason}")
    folder = ROOT / "build" / "images"
    store = Store(folder)
    with store.opened(store.build(target)) as image:
        inside = sorted(components(image.root))
        (folder / f"{target}.sbom.json").write_text(sbom(image.root))
        size = sum(path.lstat().st_size for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())
        of = {kind: sum(one.type == kind for one in inside) for kind in ("deb", "pypi")}
        sys.stdout.write(f"{target} {image.digest}\n{size / 1e6:.0f} MB: {of['pypi']} Python distributions, ")
        sys.stdout.write(f"{of['deb']} Debian packages; SBOM in build/images/{target}.sbom.json\n")


if __name__ == "__main__":
    main(sys.argv[1:])
