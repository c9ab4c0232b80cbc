"""The views of a pipeline against pandas over the events that were produced."""

import pyarrow as pa

from headwater.processors.rebuild.recompute import batch_view, differences, enriched
from headwater.processors.references import read_source
from headwater.processors.services import Services

__all__ = ["views_differ"]


def views_differ(services: Services, events: pa.Table) -> list[str]:
    """What is wrong, a line each."""
    pipeline = services.pipeline
    references = {one.name: read_source(one.source, one.name, services.client) for one in pipeline.references}
    frame = enriched(pipeline, events, references)
    return [
        line
        for view in pipeline.views
        for line in differences(
            view, batch_view(pipeline, view, frame), services.views.rows(services.view_specs[view.name])
        )
    ]
