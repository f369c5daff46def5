"""The model server as a process of its own, and the agents in examples/ that use it."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from anthropic import Anthropic
from tracefork_backend.simulate import Call, ModelServer, Reply, spawn
from tracefork_backend.simulate.behaviours import booking, booking_sampled, load
from tracefork_backend.simulate.process import SpawnError, port_of

EXAMPLES = Path(__file__).parents[3] / "examples"
ASK = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}


@contextmanager
def simulate(*arguments: str, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The module run as a command, with the line it printed; ended by its id."""
    command = [sys.executable, "-m", "tracefork_backend.simulate", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=cwd
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def run_example(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The example, run to its end without a key, unless the environment given has one."""
    hidden = ("ANTHROPIC_", "OPENAI_", "TRACEFORK_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    command = [sys.executable, "-W", "error::DeprecationWarning", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, timeout=60)


def is_open(url: str) -> bool:
    """Whether somebody listens at the URL."""
    try:
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_until_it_is_told_to_end(number: signal.Signals) -> None:
    """The command prints where it listens, answers, and ends with status 0 on SIGTERM and SIGINT."""
    with simulate("--behaviour", "research", "--seed", "3") as (process, line):
        url = line.removeprefix("listening on ").strip()
        assert line.startswith("listening on http://127.0.0.1:")
        answer = httpx.post(f"{url}/v1/messages", json=ASK).json()
        assert answer["content"][0]["text"].startswith("No source says more")
        process.send_signal(number)
        assert process.wait(10) == 0
        assert not is_open(url)


def test_command_ends_a_running_answer_before_itself() -> None:
    """An answer that runs when SIGTERM comes is still completed."""
    with (
        simulate() as (process, line),
        httpx.stream("GET", f"{line.split()[-1]}/raw/sse?events=6&delay_ms=50") as response,
    ):
        chunks = response.iter_bytes()
        first = next(chunks)
        process.terminate()
        assert (first + b"".join(chunks)).count(b"\n\n") == 6
        assert process.wait(10) == 0


def test_command_loads_a_behaviour_from_the_working_directory(tmp_path: Path) -> None:
    """A behaviour of the user's own is found by module and function."""
    source = """
        from tracefork_backend.simulate import Reply
        async def answer(call):
            return Reply(text="mine: " + call.last)
        """
    (tmp_path / "mine.py").write_text(textwrap.dedent(source))
    with simulate("--behaviour", "mine:answer", cwd=tmp_path) as (_, line):
        answer = httpx.post(f"{line.split()[-1]}/v1/messages", json=ASK).json()
    assert answer["content"][0]["text"] == "mine: hi"


@pytest.mark.parametrize("name", ["nobody", "no.such.module:fn", "json:nothing", "json:__name__"])
def test_unknown_behaviours_are_named(name: str) -> None:
    """A behaviour that does not exist or is no function is an error that names it."""
    with pytest.raises(LookupError, match=name):
        load(name)


def test_taken_port_is_an_error_unless_more_may_be_tried() -> None:
    """A port in use is refused with status 2 by name, and passed over where more ports may be tried."""
    with ModelServer() as server:
        with simulate("--port", str(server.port)) as (process, line):
            assert (process.wait(10), line) == (2, "")
        with simulate("--port", str(server.port), "--tries", "20") as (_, line):
            assert int(line.rsplit(":", 1)[1]) > server.port


@pytest.mark.slow
def test_spawn_serves_the_block_on_its_own_port() -> None:
    """A spawned server answers within the block, on the port that the file's name gives; two can share it."""
    name = f"spawned{os.getpid()}.py"
    with spawn("booking", file=f"anywhere/{name}") as url:
        assert url == f"http://127.0.0.1:{port_of('booking', name)}"
        with spawn("booking", file=f"elsewhere/{name}") as same:
            assert same == url
            for _ in range(4):
                assert httpx.post(f"{url}/v1/messages", json=ASK).status_code == 200
        assert httpx.post(f"{url}/v1/messages", json=ASK).status_code == 200
    assert not is_open(url)
    assert port_of("booking", "a.py") != port_of("booking", "b.py") != port_of("booking", "b.py", 1)


def test_spawn_passes_over_a_foreign_port() -> None:
    """A port that another program holds is passed over."""
    name = f"foreign{os.getpid()}.py"
    port = port_of("booking", name)
    with ModelServer(port=port), spawn("booking", file=name) as url:
        assert int(url.rsplit(":", 1)[1]) > port


def test_spawn_starts_nothing_in_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a replay the URL is the recorded one and nobody listens there."""
    monkeypatch.setenv("TRACEFORK_MODE", "replay")
    with spawn("booking", file="replayed.py") as url:
        assert url == f"http://127.0.0.1:{port_of('booking', 'replayed.py')}"
        assert not is_open(url)


def test_spawn_says_what_did_not_start(capfd: pytest.CaptureFixture[str]) -> None:
    """An unknown behaviour is an error with the command to try, after the child's own message."""
    with pytest.raises(SpawnError, match="--behaviour nobody"), spawn("nobody", file="x.py"):
        pass
    assert "no behaviour 'nobody'" in capfd.readouterr().err


def test_spawned_server_ends_with_a_killed_agent(tmp_path: Path) -> None:
    """An agent that is killed leaves no model server behind."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import os\nfrom tracefork_backend.simulate import spawn\n"
        "with spawn('booking', file=__file__) as url:\n"
        "    print(url, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    url = killed.stdout.strip()
    # The child's end of the pipe closes with the agent, so that `run` returns only after the child has ended.
    assert (killed.returncode, is_open(url)) == (-signal.SIGKILL, False)


def test_importing_spawn_loads_no_web_server() -> None:
    """An agent that imports spawn has neither uvicorn nor asyncio's servers in its process."""
    code = "import sys; from tracefork_backend.simulate import spawn; print('uvicorn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("city", "ending"),
    [("Tokyo", "BOOKED flight JL42 to Tokyo"), ("Osaka", "ERROR: the booking failed (sold out)")],
)
def test_booking_example(city: str, ending: str) -> None:
    """The booking agent takes five steps by itself; for Osaka its third step asks for the wrong day."""
    done = run_example("booking_agent.py", "--city", city)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(ending)
    with ModelServer(booking, seed=1) as server:
        again = run_example(
            "booking_agent.py", "--city", city, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="k"
        )
    assert again.stdout == done.stdout
    assert len(server.requests) == 5
    last = server.requests[-1].json()["messages"]
    uses = [block for message in last for block in message["content"] if isinstance(block, dict)]
    called = [(use["name"], use["input"]) for use in uses if use["type"] == "tool_use"]
    assert [name for name, _ in called] == ["search_flights", "check_seats", "check_seats", "book"]
    assert called[2][1]["date"] == ("2026-11-04" if city == "Osaka" else "2026-11-03")


def test_booking_recovers_when_its_third_step_is_mended() -> None:
    """With the right date at step 2 the Osaka run ends in a booking, so that step is the cause."""
    book = runpy.run_path(str(EXAMPLES / "booking_agent.py"))["book"]

    def mended(call: Call) -> Reply:
        reply = booking(call)
        if len(call.tool_results) != 2 or not reply.tools:
            return reply
        (tool,) = reply.tools
        fixed = type(tool)(tool.name, {**tool.input, "date": "2026-11-03"})
        return Reply(text=reply.text, tools=(fixed,))

    with ModelServer(mended) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        patch.setenv("ANTHROPIC_API_KEY", "k")
        assert book("Osaka").startswith("BOOKED flight NH176 to Osaka")
        assert book("Nowhere").startswith("ERROR: I found no flight")


@pytest.mark.parametrize("change", [{"system": "Double-check every date."}, {"model": "claude-opus-5"}])
def test_booking_is_careful_when_told_to_or_when_bigger(change: dict[str, str]) -> None:
    """An instruction to double-check, or an opus model, keeps the model from its mistake."""
    messages = [
        {"role": "user", "content": "Please book a flight to Osaka on 2026-11-03."},
        *_exchange(
            "1",
            "search_flights",
            {"city": "Osaka"},
            '[{"flight": "A1", "price": 1}, {"flight": "B2", "price": 2}]',
        ),
        *_exchange("2", "check_seats", {"flight": "A1"}, '{"flight": "A1", "seats": 0}'),
    ]
    dates = []
    with ModelServer(booking) as server, Anthropic(base_url=server.url, api_key="k") as client:
        for extra in ({}, change):
            request = {**ASK, "messages": messages, **extra}
            dates.append(client.messages.create(**request).content[-1].input["date"])  # type: ignore[call-overload]
    assert dates == ["2026-11-04", "2026-11-03"]


def test_sampled_booking_errs_most_of_the_time() -> None:
    """The sampled variant makes its mistake in some answers to the same request and not in others."""
    messages = [
        {"role": "user", "content": "Please book a flight to Tokyo on 2026-11-03."},
        *_exchange(
            "1",
            "search_flights",
            {"city": "Tokyo"},
            '[{"flight": "A1", "price": 1}, {"flight": "B2", "price": 2}]',
        ),
        *_exchange("2", "check_seats", {"flight": "A1"}, '{"flight": "A1", "seats": 0}'),
    ]
    with ModelServer(booking_sampled, seed=5) as server, httpx.Client() as client:
        answers = [
            client.post(f"{server.url}/v1/messages", json={**ASK, "messages": messages}).json()
            for _ in range(30)
        ]
    wrong = [answer["content"][-1]["input"]["date"] == "2026-11-04" for answer in answers]
    assert 12 <= sum(wrong) <= 28


@pytest.mark.slow
def test_research_example() -> None:
    """The research agent asks six questions at once and puts the six findings together in a seventh call."""
    done = run_example("research_fanout.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SYNTHESIS of 6 findings: the field began")
    with ModelServer(load("research")) as server:
        again = run_example("research_fanout.py", ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="k")
    assert again.stdout == done.stdout
    assert len(server.requests) == 7


@pytest.mark.slow
def test_openai_example() -> None:
    """The support agent refunds by three chat completions and writes its note by one response."""
    done = run_example("openai_agent.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("REFUNDED order A-1042: 89 EUR for a rain jacket.\nSUMMARY (9 words)")
    with ModelServer(load("chat_tools")) as server:
        again = run_example("openai_agent.py", OPENAI_BASE_URL=server.openai_url, OPENAI_API_KEY="k")
    assert again.stdout == done.stdout
    assert [request.path for request in server.requests] == ["/v1/chat/completions"] * 3 + ["/v1/responses"]


def _exchange(number: str, name: str, given: dict[str, str], result: str) -> list[dict[str, object]]:
    use = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": given}
    back = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": result}
    return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [back]}]
