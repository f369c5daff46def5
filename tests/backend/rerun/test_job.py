"""A job and what came of it, as bytes: they say again what was said; nothing else is believed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracefork_backend.agents.left import Left
from tracefork_backend.agents.output import OUTPUT_HEAD, Output
from tracefork_backend.rerun.job import Job, Outcome, files_of, write_files
from tracefork_backend.rerun.spending import Share
from tracefork_backend.rerun.starting import Ended

from tracefork_otel import TapeError

NAMES = st.from_regex(r"(?:trial|shared)/[a-z0-9]{1,8}(?:/[a-z0-9]{1,8})?", fullmatch=True)
FILES = st.dictionaries(NAMES, st.binary(max_size=64), max_size=4)
AMOUNTS = st.floats(min_value=0, max_value=1e6)
JOBS = st.builds(
    Job,
    director=st.just("d" * 32),
    run_id=st.just("a" * 32),
    root_span_id=st.just("b" * 16),
    settings=st.dictionaries(st.text(), st.text(), max_size=3),
    agent=st.none() | st.text(),
    portable=st.booleans(),
    go_on=st.booleans(),
    allow_drift=st.booleans(),
    timeout=st.none() | AMOUNTS,
    share=st.none()
    | st.builds(
        Share,
        reserved_usd=AMOUNTS,
        call_usd=AMOUNTS,
        most_usd=st.none() | AMOUNTS,
        at_once=st.integers(0, 99),
    ),
    prices=st.lists(st.tuples(st.text(), AMOUNTS, AMOUNTS), max_size=2).map(tuple),
    tape=st.binary(max_size=64),
    files=FILES,
)


@given(JOBS)
def test_a_job_says_again_what_it_was_made_of(job: Job) -> None:
    """Every field, and every byte of its files."""
    assert Job.from_bytes(job.to_bytes()) == job


@given(
    st.builds(
        Ended,
        exit_status=st.none() | st.integers(0, 255),
        name=st.text(),
        stdout=st.text(),
        stderr=st.text(),
        seconds=AMOUNTS,
        timed_out=st.none() | AMOUNTS,
        stopped=st.booleans(),
        not_started=st.none() | st.text(),
        rested=st.none() | st.text(),
        notes=st.lists(st.text(), max_size=2).map(tuple),
    ),
    FILES,
)
def test_what_came_of_it_says_again_how_the_agent_ended(ended: Ended, files: dict[str, bytes]) -> None:
    """With which files it wrote, changed, and which programs ran out of reach."""
    left = (Left(program="curl", what="curl", is_python=False),)
    came = Outcome(ended=ended, changed=("a",), left=left, files=files)
    assert Outcome.from_bytes(came.to_bytes()) == came


@pytest.mark.parametrize("size", [0, 10, 3 * OUTPUT_HEAD])
def test_an_output_comes_back_whole(size: int) -> None:
    """Who grades it sees all of it, also where only its ends are in memory."""
    output, printed = Output(), bytes(ord("a") + n % 26 for n in range(size))
    output.feed(printed)
    came = Outcome(ended=Ended(exit_status=0, name="x", stdout=output.text(), output=output))
    back = Outcome.from_bytes(came.to_bytes()).ended
    assert back is not None
    assert back.output is not None
    assert back.output.whole() == (printed.decode(), 0)
    assert back.output.total == size


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_by_name(data: bytes) -> None:
    """Whatever they are."""
    with pytest.raises(TapeError, match="no job, or a damaged one"):
        Job.from_bytes(data)
    with pytest.raises(TapeError, match="no result of a job, or a damaged one"):
        Outcome.from_bytes(data)


@given(JOBS, st.data())
def test_a_cut_or_changed_job_is_none_or_the_same_shape(job: Job, data: st.DataObject) -> None:
    """No change of its bytes raises anything but a refusal."""
    whole = bytearray(job.to_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[at:]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    try:
        Job.from_bytes(bytes(whole))
    except TapeError:
        pass


def zipped(told: object, *names: str) -> bytes:
    """A result that says so, with files of these names."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("told.json", json.dumps(told))
        for name in names:
            file.writestr(name, b"x")
    return held.getvalue()


TOLD = {"format": 1, "refused": None, "changed": [], "left": [], "ended": None}


@pytest.mark.parametrize(
    "name",
    [
        *("../out", "trial/../../out", "/etc/out", "trial//out", "trial/.hidden", "trial/a/.b/c", "other/a"),
        *("trial/", "trial/a\\..\\b", "trial/" + "a/" * 9 + "b", "trial/a\nb"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """Files of a result lie below its trial's folder."""
    assert Outcome.from_bytes(zipped(TOLD, "trial/store/wal/1-a.wal")).files
    with pytest.raises(TapeError, match="is no name of a file in it"):
        Outcome.from_bytes(zipped(TOLD, name))


@pytest.mark.parametrize(
    "told",
    [None, [], {}, {**TOLD, "format": 2}, {**TOLD, "changed": 7}, {**TOLD, "ended": {"exit_status": "x"}}],
)
def test_a_result_of_another_shape_is_refused(told: object) -> None:
    """By what is wrong with it."""
    with pytest.raises(TapeError, match="no result of a job"):
        Outcome.from_bytes(zipped(told))


def test_files_go_and_come_back_but_for_links(tmp_path: Path) -> None:
    """What is there already stays, a link is not followed, what is hidden does not go."""
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "store" / "wal").mkdir(parents=True)
    here.mkdir()
    (there / "store" / "wal" / "1-a.wal").write_bytes(b"wal")
    (there / "link").symlink_to("/etc/hostname")
    (there / ".hidden").write_bytes(b"h")
    (there / "kept").write_bytes(b"new")
    (here / "kept").write_bytes(b"old")
    sent = dict(files_of(there, beside="trial"))
    assert sorted(sent) == ["trial/kept", "trial/store/wal/1-a.wal"]
    write_files({**sent, "shared/b": b""}, here, beside="trial")
    assert (here / "kept").read_bytes() == b"old"
    written = here / "store" / "wal" / "1-a.wal"
    assert written.read_bytes() == b"wal"
    assert written.stat().st_mode & 0o777 == 0o600
    assert not (here / "b").exists()
    outside = tmp_path / "outside"
    outside.mkdir()
    (here / "sub").symlink_to(outside)
    with pytest.raises(OSError, match="no link"):
        write_files({"trial/sub/x": b"x"}, here, beside="trial")
    assert not list(outside.iterdir())
