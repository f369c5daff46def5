"""What a notebook shows: as the page does, without a script and without loading anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tracefork_backend as tf
from e2e.booking import RIGHT, record_failure
from e2e.command import BARE
from stored import record

from tracefork_otel.errors import UsageError


def safe(html: str) -> str:
    """Return the piece; nothing in it runs, loads or leads away."""
    assert html.startswith('<div class="tracefork">')
    assert html.rstrip().endswith("</div>")
    assert not re.search(r"<script|<link|<img|<iframe|\son\w+=|href=|url\(|@import", html)
    return html


def test_a_run_and_a_comparison(tmp_path: Path) -> None:
    """Steps with their words; both sides of two runs."""
    first, second = record(tmp_path, name="<script>alert(1)</script>"), record(tmp_path)
    with tf.open_store(tmp_path) as store:
        run = safe(store.run(first)._repr_html_())
        assert "answer 2" in run
        assert "&lt;script&gt;" in run
        step = safe(store.run(first).step(-1)._repr_html_())
        assert "step 2" in step
        assert "answer 2" in step
        with pytest.raises(UsageError, match=r"has no step 9: its steps are 0\.\.2"):
            store.run(first).step(9)
        found = safe(tf.diff(store.run(first), store.run(second))._repr_html_())
        assert "the same in every step" in found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_receipt_a_fork_and_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a real run: the receipt's lines, what was changed and how it ended, the verdict with its picture."""
    monkeypatch.setenv("PYTHONPATH", BARE["PYTHONPATH"])
    folder = record_failure(tmp_path)
    with tf.open_store(folder / ".tracefork") as store:
        run = store.run("last")
        assert "PASS    bit-exact" in safe(tf.replay(run)._repr_html_())
        edit = tf.tool_input(RIGHT["tool_input"])
        fork = tf.fork(run, at=2, edit=edit, oracle=tf.regex(success="BOOKED"))
        told = safe(fork._repr_html_())
        assert 'class="success">success' in told
        assert "tool_input" in told
        made = safe(tf.diff(run, fork)._repr_html_())
        assert "<ins>" in made
        result = tf.blame(run, oracle=tf.regex(success="BOOKED", failure="ERROR"), max_trials=8, jobs=2)
        found = safe(result._repr_html_())
        assert "<svg" in found
        assert result.experiment_id in found
