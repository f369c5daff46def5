"""An experiment's trace and its notes, read back from a real Jaeger."""

from __future__ import annotations

import pytest
import tracefork_backend as tf
from conftest import Capture
from jaeger import Jaeger
from tracefork_backend.blaming import changes
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply
from tracefork_backend.store import open_store
from tracefork_backend.validate.agents import ask

import tracefork_otel


def model(call: Call) -> Reply:
    """A word for a question; a sum is lost where its second word is bad."""
    if not call.last.startswith("sum "):
        return Reply(text="good")
    return Reply(text="LOST" if call.last.split()[2] == "bad" else "WON")


@pytest.mark.slow
def test_the_root_cause_is_red_in_the_parents_trace(
    capture: Capture, jaeger: Jaeger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note is an error of 1 µs at the step, linked to the flipped forks; the arms are one trace."""
    with ModelServer(model) as server:
        capture.on()
        tracefork_otel.agent(ask)(server.url, 4)
        capture.off()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp_http)
        run = open_store(capture.store).run("last")
        result = tf.blame(
            run,
            oracle=tf.regex(success="WON", failure="LOST"),
            change=changes.ablate("bad"),
            mode="intervene",
            agent=ask,
        )
    assert result.findings.certified == (1,)
    parent = jaeger.trace(run.run_id, lambda trace: trace.named("tracefork.blame certified"))
    (note,) = parent.named("tracefork.blame certified")
    assert note.parent_span_id == run.exchanges[1].span_id
    assert note.duration_us == 1
    assert note.tags["error"] is True
    assert note.tags["otel.status_description"] == f"lost here: {result.findings.message}"
    flipped = {one.run_id for one in result.trials if one.status == "flip"}
    assert flipped
    assert flipped <= {trace_id for trace_id, _ in note.links}

    (found,) = (
        trace_id
        for trace_id in jaeger.find("tracefork", {"tracefork.experiment.id": result.experiment_id})
        if trace_id not in {run.run_id, *(row["run_id"] for row in _trials(capture))}
    )
    arms = {one.arm_id for one in result.trials}
    wanted = 1 + len(arms) + len(result.trials) + run.steps
    trace = jaeger.trace(found, lambda trace: len(trace.spans) == wanted)
    (root,) = (span for span in trace.spans if span.name.startswith("blame "))
    assert root.tags["tracefork.blame.finding"] == result.findings.message
    assert {span.name for span in trace.spans if span.name.startswith("arm ")} == {
        f"arm {one}" for one in arms
    }


def _trials(capture: Capture) -> list[dict[str, object]]:
    """The forks of the experiment, the one that admitted the run among them."""
    return open_store(capture.store).rows("select run_id from runs where kind = 'trial'")
