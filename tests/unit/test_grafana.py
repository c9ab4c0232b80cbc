"""The dashboard for Grafana (serving/grafana.json) against what the services say: metrics, labels, paths, columns."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headwater.processors.examples.telemetry import pipeline
from headwater.processors.runners.kcl.status import FleetStatus
from tests.gateway import event, served
from tests.unit.serving_world import World

DASHBOARD = json.loads((Path(__file__).parents[2] / "serving" / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMQL = {"by", "sum", "max", "rate", "increase", "histogram_quantile", "le"}


def targets(kind: str) -> Iterator[dict[str, Any]]:
    for panel in PANELS:
        assert panel["targets"]
        yield from (one for one in panel["targets"] if one["datasource"]["type"] == kind)


def served_metrics() -> dict[str, set[str]]:
    """The labels of each metric that a gateway and a fleet have."""
    status = FleetStatus(silent_ms=1)
    status.started("w", 1)
    line = {"worker": "w", "shard": "s", "epoch": 1, "message": "status", "state": "reading", "committed": "1"}
    status.heard(line | {"lag_ms": 1, "counts": {"events": 1}}, 0)
    with served() as gateway:
        gateway.post(json.dumps(event()))
        text = gateway.client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in (*text_string_to_metric_families(text), *text_string_to_metric_families(status.metrics())):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_each_metric_and_label_is_there() -> None:
    known = served_metrics()
    expressions = [one["expr"] for one in targets("prometheus")]
    assert len(expressions) > 10
    named = set()
    for one in targets("prometheus"):
        (metric,) = re.findall(r"headwater_\w+", one["expr"])
        named.add(metric)
        (labels, *_) = [*re.findall(r"by \(([^)]*)\)", one["expr"]), ""]
        wanted = {label.strip() for label in labels.split(",")} - {""}
        assert wanted <= known[metric], one["expr"]
        assert set(re.findall(r"{{(\w+)}}", one["legendFormat"])) <= wanted
        words = set(re.findall(r"[a-z_]{2,}", one["expr"].replace("$__rate_interval", ""))) - PROMQL - wanted - {metric}
        assert words == set()
    mentioned = {
        name for name in known if name.startswith("headwater_") and not name.endswith(("_sum", "_count", "_created"))
    }
    assert mentioned == named  # what is measured is shown


def test_each_path_and_column_of_the_query_api_is_there() -> None:
    chosen = {one["name"]: one.get("query", "") for one in DASHBOARD["templating"]["list"]}
    api = World(pipeline).asking().get("/openapi.json").json()
    schemas = api["components"]["schemas"]

    def filled(text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda found: chosen[found[1]], text)

    for one in targets("yesoreyeram-infinity-datasource"):
        path, _, query = filled(re.sub(r"\$\{__\w+:date:iso\}", "T", one["url"])).partition("?")
        path = path.replace(f"{chosen['view']}/{chosen['key']}", f"{chosen['view']}/{{key}}")
        operation = api["paths"][path]["get"]
        parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert {part.partition("=")[0] for part in query.split("&")} - {""} <= parameters
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        schema = schemas[schema["$ref"].rpartition("/")[2]]
        if one["root_selector"]:
            schema = schemas[schema["properties"][one["root_selector"]]["items"]["$ref"].rpartition("/")[2]]
        assert {filled(column["selector"]) for column in one["columns"]} <= set(schema["properties"])


def test_panels_lie_beside_one_another() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_data_comes_from_what_is_chosen_above(panel: dict[str, Any]) -> None:
    kinds = {
        f"${{{one['name']}}}": one["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"
    }
    for one in (panel, *panel["targets"]):
        assert kinds[one["datasource"]["uid"]] == one["datasource"]["type"]
    assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"])
