"""What the environment says of a comparison holds in each command that plays a tape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.command import here
from forked import Desk, at_desk

TURNED = """
import pathlib
body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
body["metadata"] = {"user_id": pathlib.Path("state.txt").read_text()}
if pathlib.Path("turned").exists():
    body = dict(reversed(body.items()))
head = {"x-api-key": os.environ["AGENT_API_KEY"]}
answer = client.post(os.environ["AGENT_URL"] + "/v1/messages", json=body, headers=head)
print(answer.json()["content"][0]["text"], say("bye"))
"""
"""An agent that spells its request in another order where a file stands, and names a user by another."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose agent spells its request otherwise than in its run."""
    with at_desk(tmp_path, monkeypatch) as one:
        (tmp_path / "state.txt").write_text("ann")
        one.recorded(TURNED)
        (tmp_path / "turned").touch()
        yield one


@pytest.mark.parametrize(
    "words",
    [
        ("replay", "last"),
        pytest.param(("verify", "last"), marks=pytest.mark.slow),
        pytest.param(("fork", "last@0", "--text", "x"), marks=pytest.mark.slow),
        pytest.param(
            (
                "blame",
                "last",
                "--success-re",
                "BYE",
                "--failure-re",
                "x",
                "--ablate",
                "x",
                "--max-trials",
                "2",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_match_and_ignore(words: tuple[str, ...], desk: Desk) -> None:
    """`json` compares what is said, and a path that is ignored may differ."""
    store = ("--store", str(desk.store_path))
    assert here(*words, *store, cwd=desk.folder).status == 1
    assert here(*words, *store, cwd=desk.folder, TRACEFORK_MATCH="json").status != 1
    (desk.folder / "state.txt").write_text("bob")
    assert here(*words, *store, cwd=desk.folder, TRACEFORK_MATCH="json").status == 1
    assert here(*words, *store, cwd=desk.folder, TRACEFORK_IGNORE="metadata.user_id").status != 1
