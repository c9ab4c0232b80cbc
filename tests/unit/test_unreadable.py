"""Cut metadata and manifests, and change their bytes: whatever a reader raises is told apart from other errors."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestFile, read_manifest_list
from pyiceberg.serializers import FromInputFile

from headwater.commands.failures import explain
from headwater.config import Settings
from headwater.errors import HeadwaterError
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.unreadable import is_unreadable
from tests.lake import aws, commit, ensured, new_ledger, publisher, settings, uploads

__all__ = ["aws", "settings"]
"""Fixtures."""

FILES = PyArrowFileIO({})


def test_whatever_is_raised_of_bytes_that_are_cut_is_told_apart(settings: Settings, tmp_path: Path) -> None:
    table = _published(settings)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    (manifest, *_) = snapshot.manifests(table.io)
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        "metadata.json": (table.metadata_location, lambda path: FromInputFile.table_metadata(FILES.new_input(path))),
        "list.avro": (snapshot.manifest_list, lambda path: list(read_manifest_list(FILES.new_input(path)))),
        "manifest.avro": (manifest.manifest_path, lambda path: _at(manifest, path).fetch_manifest_entry(FILES)),
    }
    said, random = set[str](), Random(1)
    for name, (location, read) in readers.items():
        with table.io.new_input(location).open() as file:
            whole = file.read()
        cut = [whole[:at] for at in range(0, len(whole), 7)]
        changed = [_changed(whole, random) for _ in range(300)]
        for at, body in enumerate([*cut, *changed]):
            path = tmp_path / f"{at}-{name}"
            path.write_bytes(body)
            error = _raised(partial(read, str(path)))
            if error is not None:
                assert is_unreadable(error), (name, at, repr(error))
                assert not explain(error)[0].startswith("unexpected"), repr(error)
                said.add(type(error).__name__)
    assert {"EOFError", "ValueError", "UnicodeDecodeError"} < said


def test_other_errors_are_not() -> None:
    for error in (HeadwaterError("no"), KeyError("ours"), json.JSONDecodeError("ours", "{", 1)):
        with pytest.raises(type(error)) as raised:
            raise error
        assert not is_unreadable(raised.value)


def _raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _published(settings: Settings) -> Any:
    ledger = new_ledger()
    ensured(settings)
    for at in range(3):
        commit(ledger, "s0", at + 1, uploads(settings, f"f{at}", 10 * at, 3))
        publisher(settings, ledger).step()
    return open_table(settings, "metric")


def _at(manifest: ManifestFile, path: str) -> ManifestFile:
    manifest[0] = path  # its fields have no names to set them by
    return manifest


def _changed(body: bytes, random: Random) -> bytes:
    made = bytearray(body)
    for _ in range(random.randint(1, 4)):
        made[random.randrange(len(made))] = random.randrange(256)
    return bytes(made)
