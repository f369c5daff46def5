"""An exchange of the store as the span that its process would have sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.recording.outcome import is_failure
from tracefork_otel.seam.content import content_attributes
from tracefork_otel.seam.exchange import RUN_ID
from tracefork_otel.session.events import BELOW_CALL, begun_attributes, ended_attributes, exchange_events
from tracefork_otel.session.spans import SCOPE
from tracefork_otel.settings import Settings, content_wanted
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.wire.codings import plain_request


def span_of(exchange: Exchange) -> SpanRecord:
    """Return the exchange's span, its bodies and messages as far as the settings let exporters have them."""
    settings, request, response = Settings.from_env(), exchange.request, exchange.response
    url = urlsplit(request.url)
    failed = is_failure(exchange.outcome, None if response is None else response.status)
    told: dict[str, object] = {
        **exchange.attributes,
        **begun_attributes(
            request,
            seq=exchange.seq,
            replayed=exchange.replayed,
            host=url.hostname or "",
            port=None,
        ),
        **ended_attributes(response, exchange.outcome, exchange.error_type, failed=failed),
    }
    if exchange.span_trace_id is not None:
        told[RUN_ID] = exchange.trace_id
    if exchange.intervention is not None:
        told["tracefork.intervention"] = exchange.intervention
    below = exchange.attributes.get(BELOW_CALL)
    if content_wanted():
        asked = plain_request(request)
        told |= content_attributes(
            request.url, asked, response, limit=settings.content_limit, usage=not below
        )
    started_ns, ended_ns = exchange.started_ns, exchange.ended_ns or exchange.started_ns
    limit = settings.event_body_limit
    return SpanRecord(
        trace_id=exchange.told_in,
        span_id=exchange.span_id,
        parent_span_id=exchange.parent_span_id,
        name=exchange.name,
        kind="CLIENT" if below is False else "INTERNAL",
        started_ns=started_ns,
        ended_ns=ended_ns,
        status=exchange.span_status,
        status_message=exchange.error_message,
        service=exchange.service,
        scope=SCOPE,
        attributes=told,
        events=exchange_events(
            request, response, exchange.outcome, limit, started_ns=started_ns, ended_ns=ended_ns
        ),
        links=exchange.links,
    )
