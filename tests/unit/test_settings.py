"""Every setting is bounded and named: whatever a variable says, it is accepted or refused in a line with its name."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic_settings import BaseSettings

from headwater.config import GatewaySettings, KclSettings, ServeSettings, Settings, list_settings, read_settings
from headwater.errors import UsageError
from tests.called import called

GROUPS: dict[str, type[BaseSettings]] = {
    "": Settings,
    "KCL_": KclSettings,
    "GATEWAY_": GatewaySettings,
    "SERVE_": ServeSettings,
}
FIELDS = {
    f"HEADWATER_{head}{name.upper()}": (kind, name)
    for head, kind in GROUPS.items()
    for name in kind.model_fields
    if f"{name.upper()}_" not in GROUPS
}
NUMBERS = {
    name: (kind, field)
    for name, (kind, field) in FIELDS.items()
    if type(kind.model_fields[field].default) in (int, float)
}
ZERO = {
    *("HEADWATER_IDLE_SECONDS", "HEADWATER_REFERENCE_SECONDS", "HEADWATER_KCL_IDLE_MS", "HEADWATER_KCL_HTTP_PORT"),
    *("HEADWATER_KCL_ASSIGNMENT_SECONDS", "HEADWATER_GATEWAY_PORT", "HEADWATER_GATEWAY_GRPC_PORT"),
    *("HEADWATER_GATEWAY_KEY_SECONDS", "HEADWATER_GATEWAY_KEY_GRACE_SECONDS", "HEADWATER_GATEWAY_WAIT_SECONDS"),
    *("HEADWATER_GATEWAY_LINGER_MS", "HEADWATER_SERVE_PORT", "HEADWATER_SERVE_CACHE_SECONDS"),
}
"""Those for which 0 means something: a free port, never, no wait."""


class Refused(Exception):
    """A setting was refused: in one line that begins with its name."""

    def __init__(self, name: str, line: str) -> None:
        super().__init__(line)
        assert line.startswith(f"{name}=")
        assert "\n" not in line
        assert "Value error" not in line


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(name, raising=False)


def read(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The value that the setting gets; Refused when it is."""
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        try:
            made: Any = read_settings()
        except UsageError as error:
            raise Refused(name, str(error)) from error
    for part in ("kcl", "gateway", "serve"):
        if name.startswith(f"HEADWATER_{part.upper()}_"):
            made = getattr(made, part)
    return getattr(made, FIELDS[name][1])


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_without_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is no number, nor less than nothing, nor so much that no wait and no buffer could have it."""
    for value in ("", " ", "x", "nan", "inf", "-inf", "-5", "-0.001", "1e300", "1e18", str(10**30), "1_0x", "0x10"):
        with pytest.raises(Refused):
            read(name, value, monkeypatch)


@pytest.mark.parametrize("name", NUMBERS)
def test_nothing_is_refused_unless_it_means_something(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero seconds would be a busy loop, zero writers none at all; where zero has a meaning it is taken."""
    if name in ZERO:
        assert read(name, "0", monkeypatch) == 0
    else:
        with pytest.raises(Refused):
            read(name, "0", monkeypatch)


@given(name=st.sampled_from(sorted(FIELDS)), value=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@example("HEADWATER_KCL_JAVA_OPTIONS", "-Dx='")
@example("HEADWATER_GATEWAY_JWT_JWKS", "https://[::1")
@example("HEADWATER_GATEWAY_CORS_ORIGINS", "https://a/b")
@example("HEADWATER_STREAM", "")
@example("HEADWATER_STREAM", "a\n")
@example("HEADWATER_SERVE_HOST", "a b")
@example("HEADWATER_LOG_LEVEL", "loud")
@example("HEADWATER_KCL_START_AT", "soon")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_any_text_is_accepted_or_refused_by_name(name: str, value: str) -> None:
    """Never another error, never a second line; what is accepted is a finite number or the text."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            found = read(name, value, patch)
        except Refused:
            return
    assert not isinstance(found, float) or math.isfinite(found)


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all services: whoever mends them starts once more, not once for each."""
    wrong = ("HEADWATER_PUBLISH_SECONDS", "HEADWATER_KCL_HTTP_PORT", "HEADWATER_GATEWAY_PORT", "HEADWATER_SERVE_PORT")
    for name in wrong:
        monkeypatch.setenv(name, "-5")
    with pytest.raises(UsageError) as found:
        read_settings()
    assert all(f"{name}='-5'" in str(found.value) for name in wrong)


def test_an_unknown_name_is_told_with_the_nearest_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and the settings are read all the same; a group has no variable of its own."""
    monkeypatch.setenv("HEADWATER_PUBLISH_SECOND", "5")
    monkeypatch.setenv("HEADWATER_GATEWAY", "{")
    assert read_settings() == read_settings()
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 2
    assert "HEADWATER_PUBLISH_SECOND is no setting" in told[1]
    assert "did you mean HEADWATER_PUBLISH_SECONDS?" in told[1]


def test_every_variable_that_is_written_about_is_read() -> None:
    """In the docs, the compose file, the notebooks and what is deployed; heads of names end in an underscore."""
    root = Path(__file__).parents[2]
    files = [*root.glob("docs/**/*.md"), *root.glob("infra/**/*.py"), *root.glob("*.yaml"), *root.glob("*.md")]
    found = {name for file in files for name in re.findall(r"HEADWATER_[A-Z_]*[A-Z]\b", file.read_text())}
    assert len(found) > 40
    assert found - set(FIELDS) <= {"HEADWATER_DEBUG", "HEADWATER_NOTEBOOK", "HEADWATER_ATHENA_WORKGROUP"}


def test_all_settings_are_listed_with_value_default_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table, and as JSON; every field of every class is there."""
    monkeypatch.setenv("HEADWATER_PUBLISH_SECONDS", "2.5")
    rows = {one["setting"]: one for one in map(json.loads, called("settings", "--json").out.splitlines())}
    assert set(FIELDS) <= set(rows)
    assert rows["HEADWATER_PUBLISH_SECONDS"] == {
        "setting": "HEADWATER_PUBLISH_SECONDS",
        "value": 2.5,
        "default": 3.0,
        "source": "environment",
    }
    assert rows["HEADWATER_STREAM"]["source"] == "default"
    assert "HEADWATER_STREAM" in called("settings").out


def test_no_secret_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not AWS's keys, and no password that a URL or an option has."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hush3@localhost:1")
    monkeypatch.setenv("HEADWATER_KCL_JAVA_OPTIONS", "-Djavax.net.ssl.trustStorePassword=hush4")
    assert "hush" not in repr(list_settings(read_settings()))
    monkeypatch.setenv("HEADWATER_GATEWAY_JWT_JWKS", "ftp://me:hush5@localhost")
    with pytest.raises(UsageError) as found:
        read_settings()
    assert "hush" not in str(found.value)


def test_a_wrong_setting_ends_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, before anything is opened."""
    monkeypatch.setenv("HEADWATER_PUBLISH_SECONDS", "-5")
    for arguments in (["settings"], ["publish"], ["up"], ["demo"], ["keys", "list"]):
        called(*arguments).failed(2, "HEADWATER_PUBLISH_SECONDS='-5'")
