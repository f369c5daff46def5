"""Agents that are not Python, as a user types it: recorded, replayed and forked through the proxy."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from e2e.command import KEY, asking, tracefork
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

# Each test starts agents in other languages: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow


AGENT = """
const base = process.env.ANTHROPIC_BASE_URL;
const messages = [];
for (let turn = 0; turn < 3; turn++) {
  messages.push({role: "user", content: `turn ${turn}${process.env.EXTRA ?? ""}`});
  const response = await fetch(`${base}/v1/messages`, {
    method: "POST",
    headers: {"content-type": "application/json", "x-api-key": process.env.ANTHROPIC_API_KEY},
    body: JSON.stringify({model: "claude-opus-5", max_tokens: 99, stream: turn === 1, messages}),
  });
  let text;
  if (turn === 1) {
    const raw = await response.text();
    const events = raw.split("\\n").filter((line) => line.startsWith("data: "));
    text = events.map((line) => JSON.parse(line.slice(6)).delta?.text ?? "").join("");
  } else {
    text = (await response.json()).content?.[0]?.text ?? "none";
  }
  console.log(`${turn}: ${text}`);
  messages.push({role: "assistant", content: text});
}
"""

CURL = """
for word in one two; do
  curl -s -S "$ANTHROPIC_BASE_URL/v1/messages" -H "x-api-key: $ANTHROPIC_API_KEY" \
    -d '{"model":"claude-opus-5","max_tokens":9,"messages":[{"role":"user","content":"'$word'"}]}'
done
"""

GO = r"""
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func main() {
	var messages []message
	for turn := 0; turn < 3; turn++ {
		messages = append(messages, message{"user", fmt.Sprintf("turn %d", turn)})
		fields := map[string]any{"model": "claude-opus-5", "max_tokens": 99, "messages": messages}
		asked, _ := json.Marshal(fields)
		url := os.Getenv("ANTHROPIC_BASE_URL") + "/v1/messages"
		request, _ := http.NewRequest("POST", url, bytes.NewReader(asked))
		request.Header.Set("content-type", "application/json")
		request.Header.Set("x-api-key", os.Getenv("ANTHROPIC_API_KEY"))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		var said struct {
			Content []struct{ Text string }
		}
		if json.Unmarshal(body, &said); len(said.Content) == 0 {
			fmt.Println(string(body))
			os.Exit(1)
		}
		fmt.Printf("%d: %s\n", turn, said.Content[0].Text)
		messages = append(messages, message{"assistant", said.Content[0].Text})
	}
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the agents in it."""
    (tmp_path / "agent.mjs").write_text(AGENT)
    (tmp_path / "agent.sh").write_text(CURL)
    return tmp_path


def recorded_forked_replayed(folder: Path, server: ModelServer, *command: str) -> None:
    """The agent of three turns is recorded, forked in the middle and replayed without its provider."""
    recorded = asking(folder, server, "run", "--proxy", "--", *command)
    assert (recorded.status, recorded.out.splitlines()[-1:]) == (0, ["2: turn 2"]), recorded.err
    assert "3 steps" in recorded.err
    forked = asking(folder, server, "fork", "last@1", "--text", "other words", "--json")
    assert forked.status == 0, forked.err
    made = json.loads(forked.out.splitlines()[-1])
    assert (made["calls_replayed"], made["calls_live"], made["forked_at"]) == (1, 1, 1)
    assert "1: other words" in made["stdout"]
    server.close()
    replayed = asking(folder, server, "replay", "last")
    assert (replayed.status, replayed.out.splitlines()[-1]) == (0, "PASS    bit-exact"), replayed.err
    assert "3 of 3 exchanges" in replayed.out


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node(folder: Path, server: ModelServer) -> None:
    """A JavaScript agent is recorded, forked in the middle and replayed bit-exact without its provider."""
    recorded_forked_replayed(folder, server, "node", "agent.mjs")
    for path in (folder / ".tracefork").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_drift_of_a_node_agent_is_explained(folder: Path, server: ModelServer) -> None:
    """An agent that changed since its recording is served nothing live, and the receipt names the path."""
    asking(folder, server, "run", "--proxy", "--", "node", "agent.mjs")
    script = folder / "agent.mjs"
    script.write_text(script.read_text().replace("turn ${turn}", "round ${turn}"))
    asked = len(server.requests)
    replayed = asking(folder, server, "replay", "last")
    assert replayed.status == 1
    assert "messages[0].content" in replayed.out
    assert len(server.requests) == asked


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(folder: Path, server: ModelServer) -> None:
    """A shell script with curl is recorded and replayed; forks of it run at once on ports of their own."""
    recorded = asking(folder, server, "run", "--proxy", "--", "sh", "agent.sh")
    assert recorded.status == 0, recorded.err
    with open_store(folder / ".tracefork") as store:
        run = store.run("last")
        assert (run.name, run.steps) == ("sh agent.sh", 2)
        assert run.exchanges[0].request.url == server.url + "/v1/messages"
    forked = asking(folder, server, "fork", "last@0", "--text", "x", "--times", "3", "--jobs", "3", "--json")
    assert forked.status == 0, forked.err
    replayed = asking(folder, server, "replay", "last")
    assert replayed.out.splitlines()[-1] == "PASS    bit-exact"


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
def test_go(folder: Path, server: ModelServer) -> None:
    """A Go agent, compiled as it is run, is recorded, forked in the middle and replayed bit-exact."""
    (folder / "main.go").write_text(GO)
    (folder / "go.mod").write_text("module agent\n\ngo 1.21\n")
    recorded_forked_replayed(folder, server, "go", "run", ".")


def test_an_agent_that_never_calls(folder: Path, server: ModelServer) -> None:
    """A command whose requests do not come to the proxy is told which variables it has to read."""
    recorded = asking(folder, server, "run", "--proxy", "--", "true")
    assert recorded.status == 3
    assert "no request came to the proxy" in recorded.err
    assert "ANTHROPIC_BASE_URL" in recorded.err


def test_a_base_url_that_is_none(folder: Path) -> None:
    """A variable that holds no URL is named before anything runs."""
    recorded = tracefork("run", "--proxy", "--", "true", cwd=folder, OPENAI_BASE_URL="nonsense")
    assert recorded.status == 2
    assert "OPENAI_BASE_URL" in recorded.err


def test_python_is_recorded_once(folder: Path, server: ModelServer) -> None:
    """A Python agent under the proxy is not recorded by its own process as well, and replays bit-exact."""
    (folder / "agent.py").write_text(
        "import anthropic\n"
        "said = anthropic.Anthropic().messages.create(model='claude-opus-5', max_tokens=9,\n"
        "    messages=[{'role': 'user', 'content': 'hi'}])\n"
        "print(said.content[0].text)\n"
    )
    recorded = asking(folder, server, "run", "--proxy", "--", sys.executable, "agent.py")
    assert (recorded.status, recorded.out) == (0, "hi\n"), recorded.err
    with open_store(folder / ".tracefork") as store:
        assert [run.steps for run in store.runs()] == [1]
    replayed = asking(folder, server, "replay", "last")
    assert replayed.out.splitlines()[-1] == "PASS    bit-exact", replayed.out + replayed.err
