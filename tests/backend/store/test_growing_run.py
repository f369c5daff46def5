"""A run whose conversation grows costs what it is long, not the square of it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from stored import Recorder
from tracefork_backend.rerun.records import Records
from tracefork_backend.store import Store, open_store
from tracefork_backend.store import facts as facts_of_segments

from tracefork_otel.exchange import Request, StoredRequest
from tracefork_otel.store import pieces
from tracefork_otel.store.held import Held
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import read_wal

RUN = "ab" * 16
CALLS = 150
ROLES = ("user", "assistant")


def last(messages: list[dict[str, str]]) -> dict[str, object]:
    """Messages at the end, as somebody's own client may send them."""
    return {"model": "m", "messages": messages}


def before_others(messages: list[dict[str, str]]) -> dict[str, object]:
    """Messages before other members, one of which differs each time."""
    return {"messages": messages, "model": "m", "seed": len(messages), "user": f"u{len(messages)}"}


def marked(messages: list[dict[str, str]]) -> dict[str, object]:
    """The last message carries a mark that it has in no later request."""
    return {"model": "m", "messages": [*messages[:-1], {**messages[-1], "cache": "here"}], "max_tokens": 9}


def unrepeated(messages: list[dict[str, str]]) -> dict[str, object]:
    """What the model said comes back in other words."""
    return {
        "model": "m",
        "messages": [{**one, "content": f"{one['role']}: {one['content']}"} for one in messages],
    }


LAYOUTS = (last, before_others, marked, unrepeated)
Layout = Callable[[list[dict[str, str]]], dict[str, object]]


def recorded(folder: Path, layout: Layout, calls: int = CALLS) -> Store:
    """A store with one run of that many calls."""
    recorder = Recorder(folder)
    for request, answer in bodies(layout, calls):
        recorder.exchange(RUN, request, answer, url="https://api.openai.com/v1/chat/completions")
    recorder.close()
    return open_store(folder)


def bodies(layout: Layout, calls: int) -> Iterator[tuple[bytes, bytes]]:
    """Requests and answers of a chat."""
    messages = [{"role": "user", "content": "What is it? 0"}]
    for call in range(calls):
        answer = {"role": "assistant", "content": f"It is {call} of many, I should say."}
        choice = {"index": 0, "message": answer, "finish_reason": "stop"}
        yield json.dumps(layout(messages)).encode(), json.dumps({"model": "m", "choices": [choice]}).encode()
        messages += [answer, {"role": "user", "content": f"And what comes after {call}?"}]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_a_growing_run_stay_small(tmp_path: Path, layout: Layout) -> None:
    """However a client lays a request out, its chunks and its messages are a few runs of numbers."""
    with recorded(tmp_path, layout) as store:
        (file,) = (tmp_path / "segments").glob("*.exchanges.parquet")
        assert max(map(len, parquet.read_table(file).column("request_parts").to_pylist())) <= 12
        told = facts_of_segments.compute(tmp_path, *store.entries)
        assert max(map(len, told.column("messages").to_pylist())) <= 8
        sent = [request for request, _ in bodies(layout, CALLS)]
        assert [one.request.body for one in store.exchanges(RUN)] == sent
        counts = store.rows("select count(*) n, max(position) last from messages group by step order by step")
        assert [tuple(row.values()) for row in counts] == [(2 * n + 2, 2 * n + 1) for n in range(CALLS)]
        said = store.rows("select role, content from messages where step = 7 order by position")
        assert [row["role"] for row in said] == ["user", "assistant"] * 8
        assert said[-1]["content"] == "It is 7 of many, I should say."


def test_bodies_that_are_many_are_read_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an exchange is what it was: equal, copied, pickled, changed; and one step is read alone."""
    with recorded(tmp_path, last, 20) as store:
        whole = store.exchanges(RUN)
        monkeypatch.setattr(pieces, "AT_ONCE", 100)
        late = store.exchanges(RUN)
        assert {type(one.request) for one in late} == {StoredRequest}
        assert late == whole
        assert whole == late
        assert late[3].request != whole[4].request
        assert hash(late[3].request) == hash(whole[3].request)
        for same in (copy.deepcopy(late[3]), pickle.loads(pickle.dumps(late[3])), replace(late[3])):
            assert same == whole[3]
        assert replace(late[3].request, body=b"x") == replace(whole[3].request, body=b"x")
        assert type(pickle.loads(pickle.dumps(late[3].request))) is Request
        assert store.exchange(RUN, whole[7].span_id) == whole[7]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_sealed_yet_holds_what_requests_share_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    """Read out of logs, by the store and as a replay's records, requests are what they were, and small."""
    recorder = Recorder(tmp_path)
    sent = list(bodies(layout, 40))
    for request, answer in sent:
        recorder.exchange(RUN, request, answer)
    with open_store(tmp_path) as store:
        whole = store.exchanges(RUN)
        monkeypatch.setattr(pieces, "AT_ONCE", 100)
        late = store.exchanges(RUN)
        alone = store.exchange(RUN, whole[7].span_id)
    read = Records.read(tmp_path).exchanges
    recorder.close()
    assert [one.request.body for one in late] == [request for request, _ in sent]
    assert [one.request.sha256 for one in late] == [one.request.sha256 for one in whole]
    assert [one.request.digest(b"x") for one in late] == [one.request.digest(b"x") for one in whole]
    assert [one.request.length for one in late] == [len(request) for request, _ in sent]
    assert list(read) == list(late) == list(whole)
    assert alone == whole[7]
    assert {type(one.request) for one in (*late[1:], *read[1:])} == {StoredRequest}


def test_requests_out_of_logs_are_held_by_what_is_new_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the calls hold about twice the text; all of their bodies would be four times as many bytes."""
    monkeypatch.setattr(pieces, "AT_ONCE", 0)

    def held_bytes(calls: int) -> int:
        recorder = Recorder(tmp_path / str(calls))
        for request, answer in bodies(last, calls):
            recorder.exchange(RUN, request, answer)
        (path,) = wal_files(tmp_path / str(calls))
        held = Held()
        read_wal(path, keep=held.keep)
        recorder.close()
        return len(held.stored(0).chunks.groups[0][1])

    assert held_bytes(120) < 2.3 * held_bytes(60)


def test_a_changed_chunk_damages_what_it_is_part_of(tmp_path: Path) -> None:
    """Each body that has it, and no other, though what bodies share is looked at once."""
    with recorded(tmp_path, last, 30) as store:
        whole = store.exchanges(RUN)
    (path,) = (tmp_path / "segments").glob("*.chunks.parquet")
    table = parquet.read_table(path)
    texts = [text and text.replace("after 9?", "after 8?") for text in table.column("text").to_pylist()]
    at = table.schema.get_field_index("text")
    parquet.write_table(table.set_column(at, table.schema.field(at), pa.array(texts, pa.string())), path)
    with open_store(tmp_path) as store:
        damaged = [step for step, one in enumerate(store.exchanges(RUN)) if one.damage]
        assert damaged == [step for step, one in enumerate(whole) if b"after 9?" in one.request.body]
        assert damaged == list(range(10, 30))
