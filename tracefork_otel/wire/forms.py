"""The wire forms: the paths that each one owns. Looking a path up here loads no form's file."""

from __future__ import annotations

import re
from typing import NamedTuple


class Path(NamedTuple):
    """Paths by which a form is called, below any prefix."""

    pattern: str
    """Of how the path ends; its group `model` is the model, its group `deployment` what stands in for one."""
    provider: str
    """`gen_ai.provider.name` on a host that is in no table: whose API the path is."""
    operation: str = "chat"
    """`gen_ai.operation.name`."""
    method: str = "POST"
    """One that fetches an answer has no body: its path alone tells what it is."""


class Form(NamedTuple):
    """A wire form: its name, the module that reads and writes it, and where it is spoken."""

    name: str
    module: str
    paths: tuple[Path, ...]
    spoken_by_all: bool = False
    """Whether servers of every kind speak it, for models of any maker."""

    def place(self, path: str, method: str = "POST") -> tuple[Path, re.Match[str]] | None:
        """Return which of its paths this is, None where it is none."""
        for one in self.paths:
            found = re.search(f"(?:{one.pattern})\\Z", path) if one.method == method else None
            if found is not None:
                return one, found
        return None


_HERE = "tracefork_otel.wire"
_DEPLOYMENT = r"(?:/deployments/(?P<deployment>[^/]+)(?:/.*)?)?"
_BEDROCK = r"/model/(?P<model>.+)"
# Models that make no text are called by the same path.
_SPEAKING = r"/model/(?P<model>(?!.*(?:embed|rerank|image|canvas|reel|stability\.|marengo)).+)"
_GEMINI = r"/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):(?:generateContent|streamGenerateContent)"

FORMS = (
    Form(
        "anthropic",
        f"{_HERE}.anthropic",
        (
            Path(r"/v1/messages", "anthropic"),
            Path(
                r"/publishers/anthropic/models/(?!count-tokens:)(?P<model>[^/:]+):(?:streamRawPredict|rawPredict)",
                "gcp.vertex_ai",
            ),
        ),
    ),
    Form(
        "openai_chat",
        f"{_HERE}.openai_chat",
        (Path(_DEPLOYMENT + "/chat/completions", "openai"),),
        spoken_by_all=True,
    ),
    Form(
        "openai_completions",
        f"{_HERE}.openai_completions",
        (Path(_DEPLOYMENT + r"(?<!/chat)(?<!/fim)/completions", "openai", "text_completion"),),
        spoken_by_all=True,
    ),
    Form(
        "openai_responses",
        f"{_HERE}.openai_responses",
        (
            Path(_DEPLOYMENT + "/responses", "openai"),
            # Where the answer to one in the background is fetched.
            Path(_DEPLOYMENT + r"/responses/resp_[\w-]+", "openai", method="GET"),
        ),
        spoken_by_all=True,
    ),
    Form("cohere_chat", f"{_HERE}.cohere_chat", (Path(r"/v2/chat", "cohere"),)),
    Form(
        "ollama",
        f"{_HERE}.ollama",
        (Path(r"/api/chat", "ollama"), Path(r"/api/generate", "ollama", "text_completion")),
        spoken_by_all=True,
    ),
    Form(
        "gemini",
        f"{_HERE}.gemini",
        (
            Path(r"/(?:publishers|projects)/.*" + _GEMINI, "gcp.vertex_ai", "generate_content"),
            Path(_GEMINI, "gcp.gemini", "generate_content"),
        ),
    ),
    Form(
        "bedrock_converse",
        f"{_HERE}.bedrock_converse",
        (Path(_BEDROCK + "/converse(?:-stream)?", "aws.bedrock"),),
    ),
    Form(
        "bedrock_invoke",
        f"{_HERE}.bedrock_invoke",
        (Path(_SPEAKING + "/invoke(?:-with-response-stream)?", "aws.bedrock"),),
    ),
)
"""Adding a form is adding its file and its line here; tests/otel/wire/test_forms.py is the recipe."""
