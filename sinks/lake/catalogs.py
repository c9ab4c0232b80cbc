"""Open the catalog that the settings name: Glue's, or any that speaks Iceberg's REST protocol.

Both give pyarrow boto3's credentials of the moment, and both send a commit once. What a catalog answers that is no
answer is an error that a caller tries again after: it says nothing about whether a commit got through.
"""

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

import boto3
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import ForbiddenError, OAuthError, RESTError, UnauthorizedError

from headwater.aws import client
from headwater.config import Settings
from headwater.errors import HeadwaterError, Retryable
from headwater.settingtypes import GLUE, rest_options

__all__ = ["open_catalog"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Glue:
    """Send UpdateTable once, and all else as boto3 does.

    When an answer is lost and botocore sends the update again, Glue refuses the second (the version has moved on by
    the first), and pyiceberg takes that for a failed commit and deletes the manifests that the first one made current.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._glue = client("glue", settings)

    def update_table(self, **request: Any) -> Any:
        return self._once.update_table(**request)

    @cached_property
    def _once(self) -> Any:
        return client("glue", self._settings, retries={"mode": "standard", "total_max_attempts": 1})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._glue, name)


class _OurFiles:
    """Give pyarrow boto3's credentials of the moment: pyarrow knows fewer sources of them, and cannot renew any.

    While they are the same, all tables share what they read files through: each has connections of its own, which stay
    open until Python looks for circles, and a table is loaded anew every few seconds. What a table's properties, or a
    REST catalog's answers, say of S3 is not heard: whoever writes them would learn the credentials.
    """

    _shared: tuple[dict[str, Any], Any] | None = None

    def _load_file_io(self, properties: Any = None, location: str | None = None) -> Any:  # noqa: ARG002 (pyiceberg's names)
        found = boto3.session.Session().get_credentials()
        now = found.get_frozen_credentials() if found else None
        keys: dict[str, Any] = (
            {} if now is None else {"s3.access-key-id": now.access_key, "s3.secret-access-key": now.secret_key}
        )
        if now is not None and now.token:
            keys["s3.session-token"] = now.token
        shared = self._shared
        if shared is None or shared[0] != keys:
            shared = self._shared = (keys, Catalog._load_file_io(self, keys, location))
        return shared[1]


class _GlueCatalog(_OurFiles, GlueCatalog):  # type: ignore[misc]  # pyiceberg is not looked into
    """Glue, through boto3."""


def _asked(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return the method with errors of ours: a catalog that is down, or in doubt, is asked again."""

    @wraps(method)
    def ask(*arguments: _P.args, **named: _P.kwargs) -> _T:
        try:
            return method(*arguments, **named)
        except (UnauthorizedError, ForbiddenError, OAuthError) as error:
            raise HeadwaterError(f"the catalog refuses: {_one_line(error)}") from error
        except (RESTError, OSError) as error:
            raise Retryable(f"the catalog does not answer: {_one_line(error)}") from error

    return ask


class _RestCatalog(_OurFiles, RestCatalog):  # type: ignore[misc]  # the same
    """A catalog of Iceberg's REST protocol. pyiceberg sends a commit again only when it was refused as unauthorized."""

    load_table = _asked(RestCatalog.load_table)
    list_tables = _asked(RestCatalog.list_tables)
    create_table = _asked(RestCatalog.create_table)
    commit_table = _asked(RestCatalog.commit_table)
    drop_table = _asked(RestCatalog.drop_table)
    create_namespace = _asked(RestCatalog.create_namespace)


def open_catalog(settings: Settings) -> Catalog:
    """Open the catalog of the settings; files go through pyarrow to the endpoint where boto3 finds S3.

    Raise Retryable for a REST catalog that is not there, and HeadwaterError for one that lets us not in.
    """
    s3 = client("s3", settings)
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", "s3.region": s3.meta.region_name}
    if "amazonaws.com" not in s3.meta.endpoint_url:
        properties["s3.endpoint"] = s3.meta.endpoint_url
    if settings.catalog == GLUE:
        return _GlueCatalog("headwater", client=_Glue(settings), **properties)
    return _asked(_RestCatalog)("headwater", **rest_options(settings.catalog), **properties)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
