"""How a run began is read from few spans, however many its trace has without a parent."""

from __future__ import annotations

from pathlib import Path

from stored import Recorder
from tracefork_backend.store import open_store

RUN = "ab" * 16


def test_how_a_run_began_is_not_looked_for_in_spans_of_others(tmp_path: Path) -> None:
    """Spans that say nothing in our words are not read for it; of those that do, a thousand."""
    recorder = Recorder(tmp_path)
    recorder.exchange(RUN, b"{}", b"{}")
    for number in range(100):
        recorder.root(RUN, f"operation {number}", attributes={"number": number, "said": "of tracefork."})
    recorder.root(RUN, attributes={"tracefork.command": '["python", "agent.py"]'})
    for number in range(1100):
        recorder.root(RUN, attributes={"tracefork.exit_status": number})
    recorder.close()
    with open_store(tmp_path) as store:
        told = store.ask("heads_of_run", run_id=RUN)
        assert ("python" in told[0]["attributes"], len(told)) == (True, 1000)
        start = store.run("last").start
    assert (start.command, start.exit_status) == (("python", "agent.py"), 0)
