"""Which variables lead SDKs to a proxy, and whose address each stands for."""

from __future__ import annotations

import pytest
from tracefork_backend.network.agents import routes_of

AWS = {"AWS_REGION": "eu-west-1"}
KEY = {"AWS_BEARER_TOKEN_BEDROCK": "key"}
CLOUD = {"GOOGLE_CLOUD_PROJECT": "p"}


@pytest.mark.parametrize(
    ("variable", "environ", "address"),
    [
        ("CO_API_URL", {}, "https://api.cohere.com"),
        ("OLLAMA_HOST", {}, "http://127.0.0.1:11434"),
        ("OLLAMA_HOST", {"OLLAMA_HOST": "box"}, "http://box:11434"),
        ("OLLAMA_HOST", {"OLLAMA_HOST": "box:99"}, "http://box:99"),
        ("OLLAMA_HOST", {"OLLAMA_HOST": "https://box/under"}, "https://box/under"),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", {}, None),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", AWS, None),  # what it signs names the host
        (
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
            {**AWS, **KEY},
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
        ),
        ("GOOGLE_VERTEX_BASE_URL", CLOUD, None),
        (
            "GOOGLE_VERTEX_BASE_URL",
            {**CLOUD, "GOOGLE_CLOUD_LOCATION": "us-east5"},
            "https://us-east5-aiplatform.googleapis.com",
        ),
        (
            "GOOGLE_VERTEX_BASE_URL",
            {**CLOUD, "GOOGLE_CLOUD_LOCATION": "global"},
            "https://aiplatform.googleapis.com",
        ),
        ("AZURE_OPENAI_ENDPOINT", {}, None),
        (
            "AZURE_OPENAI_ENDPOINT",
            {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/"},
            "https://mine.openai.azure.com",
        ),
    ],
)
def test_a_variable_leads_where_it_led(variable: str, environ: dict[str, str], address: str | None) -> None:
    """A variable that is set leads there, one that is not to its provider, where that is known."""
    found = {route.variable: f"{route.origin}{route.path}" for route in routes_of(environ)}
    assert found.get(variable) == address
