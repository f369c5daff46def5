"""The player of a fork: the prefix from the tape, the intervention once, the tail as asked."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tracefork_otel.errors import TapeError, UsageError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.play import memory
from tracefork_otel.play.answers import Live, Miss, Served
from tracefork_otel.play.claims import Claims, claims_beside
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.match import fingerprint
from tracefork_otel.play.player import Player
from tracefork_otel.tape.tape import Tape

URL = "https://api.anthropic.com/v1/messages"


def request(content: str, **members: object) -> Request:
    """An Anthropic request with that content as its only message."""
    body = {"model": "claude-x", "messages": [{"role": "user", "content": content}], **members}
    return Request(method="POST", url=URL, body=json.dumps(body).encode())


def answer_to(content: str) -> Response:
    """The recorded answer `to <content>`, in one chunk."""
    body = f"to {content}".encode()
    return Response(status=200, body=body, chunk_sizes=(len(body),), chunk_offsets_us=(0,))


def tape(*steps: tuple[str, int, int | None]) -> Tape:
    """A tape whose exchanges ask these contents, from and to these times, and are answered `to <content>`."""
    return Tape(
        run_id="ab" * 16,
        exchanges=tuple(
            Exchange(
                trace_id="ab" * 16,
                span_id=f"{at:016x}",
                parent_span_id=None,
                process_id="1-00000000",
                seq=at,
                started_ns=started,
                ended_ns=ended,
                request=request(content),
                response=None if ended is None else answer_to(content),
                outcome="in_flight" if ended is None else "complete",
            )
            for at, (content, started, ended) in enumerate(steps)
        ),
    )


LINE = tape(("a", 0, 1), ("b", 2, 3), ("c", 4, 5), ("d", 6, 7))
OTHER = Response(status=200, body=b"changed")


def change(step: int, kind: Any = "text", **members: Any) -> Intervention:
    """An intervention at a step, with another response where its kind needs one."""
    if kind == "text":
        members.setdefault("response", OTHER)
    return Intervention(kind=kind, step=step, label=kind, **members)


def asked(player: Player, *contents: str) -> list[tuple[str, object]]:
    """Phase and answer of each request in turn: the body served, `live` or `miss`."""
    found: list[tuple[str, object]] = []
    for content in contents:
        answer = player.answer(request(content))
        if isinstance(answer, Served):
            response = answer.exchange.response
            said: object = response.body.decode() if response is not None else answer.exchange.error_type
        else:
            said = "live" if isinstance(answer, Live) else "miss"
        found.append((str(answer.phase), said))
    return found


def test_a_line_of_calls_is_prefix_then_change_then_live() -> None:
    """Steps before the change come from the tape, the change once, and everything after goes live."""
    player = Player(LINE, intervention=change(1))
    assert player.watching
    assert asked(player, "a") == [("prefix", "to a")]
    assert player.watching
    assert asked(player, "b", "b", "c", "z") == [
        ("intervention", "changed"),
        ("tail", "live"),
        ("tail", "live"),
        ("tail", "live"),
    ]
    assert not player.watching


def test_the_answer_says_what_it_is() -> None:
    """The forked exchange carries the label; only a changed one is not a recorded answer."""
    served = Player(LINE, intervention=change(0)).answer(request("a"))
    assert isinstance(served, Served)
    assert (served.step, served.label, served.changed) == (0, "text", True)
    same = Player(LINE, intervention=change(0, "noop")).answer(request("a"))
    assert isinstance(same, Served)
    assert (same.step, same.label, same.changed, same.exchange) == (0, "noop", False, LINE.exchanges[0])


@pytest.mark.parametrize("tail", ["live", "recorded", "offline"])
def test_nothing_but_the_tape_is_answered_before_the_change(tail: Any) -> None:
    """What is on no step is a drift, and from then on nothing goes live and nothing is changed."""
    player = Player(LINE, intervention=change(2, tail=tail))
    assert asked(player, "y", "a", "c", "d", "z", "b") == [
        ("prefix", "miss"),
        ("prefix", "to a"),
        ("prefix", "miss"),
        ("prefix", "miss"),
        ("prefix", "miss"),
        ("prefix", "to b"),
    ]
    assert player.watching


@pytest.mark.parametrize("tail", ["live", "recorded", "offline"])
def test_a_worker_that_is_free_earlier_asks_what_was_later(tail: Any) -> None:
    """What is asked before the change cannot depend on it: each step of the tape answers it, once."""
    player = Player(LINE, intervention=change(1, tail=tail))
    assert asked(player, "d", "a", "b", "c") == [
        ("prefix", "to d"),
        ("prefix", "to a"),
        ("intervention", "changed"),
        ("tail", "live") if tail == "live" else ("memo", "to c"),
    ]
    answer = player.answer(request("d"))
    assert isinstance(answer, Miss if tail == "offline" else Live), "its recorded answer was given"


@pytest.mark.parametrize("seed", range(40))
def test_any_step_of_a_fan_out_over_few_workers_can_be_forked(seed: int, tmp_path: Path) -> None:
    """In whichever order workers come to their jobs, the change is made and nothing is refused."""
    chance = random.Random(seed)
    workers, jobs = chance.randint(1, 4), [f"q{n}" for n in range(chance.randint(1, 9))]
    free, times, line = [0] * workers, [], list(jobs)
    chance.shuffle(line)
    for job in line:
        at = free.index(min(free))
        started = free[at]
        free[at] += chance.randint(1, 9)
        times.append((job, started, free[at]))
    recorded = tape(*sorted(times, key=lambda one: one[1]))
    step, tail = chance.randrange(len(jobs)), chance.choice(("live", "recorded", "offline"))
    (folder := tmp_path / "fork.json.claims").mkdir()
    processes = [
        Player(recorded, intervention=change(step, tail=tail), claim=Claims(folder))
        for _ in range(chance.randint(1, 2))
    ]
    chance.shuffle(line)
    found = [asked(chance.choice(processes), job)[0] for job in line]
    assert ("prefix", "miss") not in found
    assert [said for said in found if said[0] == "intervention"] == [("intervention", "changed")]
    assert all(said == "live" for phase, said in found if phase == "tail")


def test_a_further_change_is_made_at_its_step_also_where_that_is_asked_early() -> None:
    """A set of changes is one of steps: the second is made where the recorded step is asked for."""
    player = Player(LINE, intervention=change(1, also=(change(3, response=answer_to("me")),)))
    assert asked(player, "a", "d", "b", "c", "z") == [
        ("prefix", "to a"),
        ("intervention", "to me"),
        ("intervention", "changed"),
        ("tail", "live"),
        ("tail", "live"),
    ]


def test_a_drift_names_the_prefix_step_that_it_should_have_been() -> None:
    """A changed request before the change is explained by the prefix, not by a step after it."""
    player = Player(LINE, intervention=change(1))
    answer = player.answer(request("A"))
    assert isinstance(answer, Miss)
    assert (answer.explanation.step, answer.explanation.path) == (0, "messages[0].content")
    assert answer.explanation.got == "A"


def test_a_recorded_tail_answers_what_the_parent_asked_and_goes_live_for_the_rest() -> None:
    """Each answer of the parent's rest is used once; any other request goes over the network."""
    player = Player(LINE, intervention=change(1, tail="recorded"))
    assert asked(player, "a", "b", "d", "z", "c", "d") == [
        ("prefix", "to a"),
        ("intervention", "changed"),
        ("memo", "to d"),
        ("tail", "live"),
        ("memo", "to c"),
        ("tail", "live"),
    ]


def test_an_offline_tail_refuses_what_the_parent_did_not_ask() -> None:
    """No request goes over the network; a refused one is explained, a retry of it only once."""
    player = Player(LINE, intervention=change(1, tail="offline"))
    assert asked(player, "a", "b", "c", "z", "z", "d") == [
        ("prefix", "to a"),
        ("intervention", "changed"),
        ("memo", "to c"),
        ("tail", "miss"),
        ("tail", "miss"),
        ("memo", "to d"),
    ]


@pytest.mark.parametrize(
    ("kind", "then"), [("fault", ("memo", "to b")), ("text", ("memo", "to b")), ("noop", ("tail", "live"))]
)
def test_a_retry_of_the_changed_request_gets_the_recorded_answer(kind: Any, then: tuple[str, str]) -> None:
    """After a fault the SDK asks again, and a recorded tail has the answer; a noop has used it up."""
    player = Player(LINE, intervention=change(1, kind, tail="recorded", response=OTHER))
    assert asked(player, "a", "b", "b")[2] == then
    assert asked(player, "b") == [("tail", "live")]


def test_siblings_of_the_changed_step_are_prefix_before_and_after_it() -> None:
    """What started before the changed exchange ended does not depend on it, and comes from the tape."""
    fan = tape(("q0", 0, 50), ("q1", 1, 20), ("q2", 2, 60), ("q3", 30, 40), ("sum", 61, 70))
    player = Player(fan, intervention=change(0))
    assert asked(player, "q3", "q0", "q2", "q1", "sum") == [
        ("prefix", "to q3"),
        ("intervention", "changed"),
        ("prefix", "to q2"),
        ("prefix", "to q1"),
        ("tail", "live"),
    ]
    late = Player(fan, intervention=change(1))
    assert asked(late, "q1", "q3")[1] == ("tail", "live"), "q3 began after q1 had ended"


def test_beside_a_step_that_never_ended_everything_is_a_sibling() -> None:
    """An exchange that was open when the recording ended has nothing after it."""
    player = Player(tape(("a", 0, 1), ("open", 2, None), ("c", 4, 5)), intervention=change(1))
    assert asked(player, "c", "a", "open") == [
        ("prefix", "to c"),
        ("prefix", "to a"),
        ("intervention", "changed"),
    ]


def test_equal_requests_are_told_apart_by_their_order() -> None:
    """Of equal requests the earlier ones are the prefix, and the one in its place is changed."""
    retries = tape(("a", 0, 1), ("a", 2, 3), ("a", 4, 5))
    player = Player(retries, intervention=change(1, tail="offline"))
    assert asked(player, "a", "a", "a", "a", "a") == [
        ("prefix", "to a"),
        ("intervention", "changed"),
        ("memo", "to a"),
        ("memo", "to a"),
        ("tail", "miss"),
    ]


def test_an_edited_request_goes_live_with_only_that_changed() -> None:
    """The body that goes out is the agent's own but for the edited paths."""
    edits = (("temperature", 0), ("messages[0].content", "other"))
    player = Player(LINE, intervention=change(0, "request", edits=edits))
    answer = player.answer(request("a", temperature=1))
    assert isinstance(answer, Miss), "the request has to be the recorded one before it is edited"
    player = Player(LINE, intervention=change(0, "request", edits=edits))
    answer = player.answer(request("a"))
    assert isinstance(answer, Live)
    assert answer.body is not None
    body = json.loads(answer.body)
    assert body == json.loads(request("other").body) | {"temperature": 0}
    assert (answer.phase, answer.label) == ("intervention", "request")
    resampled = Player(LINE, intervention=change(0, "resample")).answer(request("a"))
    assert resampled == Live("intervention", None, "resample", step=0)


def test_an_edit_that_does_not_fit_changes_nothing_and_stops_the_fork() -> None:
    """The agent's request lacks the path (it was matched by less than its bytes): nothing goes live."""
    edits = (("messages[3].content", "x"),)
    player = Player(LINE, intervention=change(0, "request", edits=edits))
    with pytest.raises(UsageError, match=r"messages\[3\]"):
        player.answer(request("a"))
    assert asked(player, "b", "z") == [("prefix", "miss"), ("prefix", "miss")]


@pytest.mark.parametrize(
    ("part", "outcome", "error"),
    [
        (OTHER, "cut", "httpx2.RemoteProtocolError"),
        (None, "no_response", "httpx2.RemoteProtocolError"),
    ],
)
def test_a_disconnect_gives_what_came_and_breaks(part: Response | None, outcome: str, error: str) -> None:
    """The part that came is served, and the client's own error follows."""
    answer = Player(LINE, intervention=change(0, "fault", error="disconnect", response=part)).answer(
        request("a")
    )
    assert isinstance(answer, Served)
    assert (answer.exchange.response, answer.exchange.outcome, answer.exchange.error_type) == (
        part,
        outcome,
        error,
    )


def test_a_timeout_is_the_clients_own() -> None:
    """No response comes, but the error that a client raises when it waited too long."""
    answer = Player(LINE, intervention=change(0, "fault", error="timeout")).answer(request("a"))
    assert isinstance(answer, Served)
    assert (answer.exchange.response, answer.exchange.error_type) == (None, "httpx2.ReadTimeout")


def shared(folder: Path) -> Path:
    """The intervention's file, with a folder for claims beside it."""
    (folder / "change.json.claims").mkdir()
    return folder / "change.json"


def test_processes_of_one_fork_share_where_it_stands(tmp_path: Path) -> None:
    """The change is delivered to one process alone, and the others know that the tail has begun."""
    path = shared(tmp_path)
    one = Player(LINE, intervention=change(1, tail="recorded"), claim=claims_beside(path))
    two = Player(LINE, intervention=change(1, tail="recorded"), claim=claims_beside(path))
    assert asked(one, "a", "b") == [("prefix", "to a"), ("intervention", "changed")]
    assert not two.watching
    assert asked(two, "b", "c", "a") == [("memo", "to b"), ("memo", "to c"), ("tail", "live")]
    assert asked(one, "b", "c") == [("tail", "live"), ("tail", "live")]


def test_a_drift_in_one_process_stops_the_others(tmp_path: Path) -> None:
    """Once any process left the tape, no process of the fork gets the change or goes live."""
    path = shared(tmp_path)
    one = Player(LINE, intervention=change(1), claim=claims_beside(path))
    two = Player(LINE, intervention=change(1), claim=claims_beside(path))
    assert asked(one, "z") == [("prefix", "miss")]
    assert asked(two, "b", "c") == [("prefix", "miss"), ("prefix", "miss")]
    assert two.watching


@pytest.mark.slow
def test_real_processes_deliver_a_change_once(tmp_path: Path) -> None:
    """Of eight processes that ask at once, exactly one gets the change, and the others go live."""
    path, recorded = shared(tmp_path), tmp_path / "tape"
    LINE.dump(recorded)
    change(0).dump(path)
    code = """
import sys
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.claims import Claims, claims_beside
from tracefork_otel.play.answers import Live
from tracefork_otel.play.player import Player
from tracefork_otel.tape.tape import Tape
tape, path = Tape.load(sys.argv[1]), __import__("pathlib").Path(sys.argv[2])
player = Player(tape, intervention=Intervention.load(path), claim=claims_beside(path))
print(player.answer(tape.exchanges[0].request).phase)
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRACE")}
    argv = [sys.executable, "-c", code, str(recorded), str(path)]
    started = [subprocess.Popen(argv, stdout=subprocess.PIPE, env=env, text=True) for _ in range(8)]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in started)
    assert said == ["intervention"] + ["tail"] * 7


def test_threads_deliver_a_change_once() -> None:
    """Of many threads that send the changed request, exactly one gets the change."""
    player = Player(LINE, intervention=change(0))
    phases: list[str] = []
    barrier = threading.Barrier(16)

    def ask() -> None:
        barrier.wait()
        phases.append(str(player.answer(request("a")).phase))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(phases) == ["intervention"] + ["tail"] * 15


def test_ignored_paths_match_in_the_prefix_and_in_the_tail() -> None:
    """A path that is left out of the comparison is so before and after the change."""
    player = Player(LINE, intervention=change(1, tail="offline"), match="json", ignore=("now",))
    answers = [player.answer(request(content, now=at)) for at, content in enumerate("abcd")]
    assert [answer.phase for answer in answers] == ["prefix", "intervention", "memo", "memo"]


def test_a_tail_is_answered_from_memory_each_answer_once(tmp_path: Path) -> None:
    """A live request that an earlier trial made gets its answer, in order; then, and else, it goes live."""
    earlier = tape(("d", 0, 1), ("x", 2, 3), ("d", 4, 5), ("b", 6, 7))
    earlier.dump(tmp_path / "earlier")
    keys = [fingerprint(one.request) for one in earlier.exchanges]
    file = tmp_path / "change.json"
    memory.dump([memory.Remembered(key, tmp_path / "earlier", at) for at, key in enumerate(keys)], file)
    recall = memory.memory_beside(file, Claims())
    player = Player(LINE, intervention=change(1), recall=recall)
    assert asked(player, "a", "b", "d", "d", "d", "x", "z") == [
        ("prefix", "to a"),
        ("intervention", "changed"),
        ("memo", "to d"),
        ("memo", "to d"),
        ("tail", "live"),
        ("memo", "to x"),
        ("tail", "live"),
    ]
    resampled = Player(LINE, intervention=change(1, "resample"), recall=memory.memory_beside(file, Claims()))
    assert asked(resampled, "a", "b")[1] == ("intervention", "live")
    assert memory.memory_beside(tmp_path / "other.json", Claims()) is None
    file.with_name("change.json.memory").write_text("no memory\n")
    with pytest.raises(TapeError, match="damaged"):
        memory.memory_beside(file, Claims())
