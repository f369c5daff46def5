"""Folders that stand for a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracefork_otel.store.spool import bucket_of, is_of_bucket, spool


def test_only_a_folder_of_ours_says_where_recordings_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that came with somebody's repository sends nothing anywhere, whatever files it has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    foreign = tmp_path / "repository" / ".tracefork"
    foreign.mkdir(parents=True)
    for mark in (".bucket", ".mirror"):
        (foreign / mark).write_text("s3://theirs/prefix")
    assert bucket_of(foreign) is None
    assert not is_of_bucket(foreign)
    ours = spool("s3://ours/prefix")
    assert bucket_of(ours) == "s3://ours/prefix"
    assert is_of_bucket(ours)
