"""The hosts of model providers: one row says all that is known of one. A compatible host is one more row."""

from __future__ import annotations

from typing import NamedTuple


class Host(NamedTuple):
    """A host, or all hosts that differ in the part for which `*` stands."""

    name: str
    provider: str
    """`gen_ai.provider.name`, in the words of OTel's GenAI convention where it has one."""
    price: str | None = None
    """The provider's name in the `genai-prices` package where that is another."""
    watched: bool = True
    """Whether a call of it is a model's: some of these hosts serve much else."""
    variable: str | None = None
    """The environment variable by which the provider's own SDKs in every language are led elsewhere."""
    base_path: str = ""
    """The path of the URL that the variable holds by default."""
    root: str = ""
    """What all paths of its API begin with, whether or not an SDK wants it in the base URL."""

    def is_called(self, name: str) -> bool:
        """Return whether that lower-case name is one of this row's."""
        start, star, end = self.name.partition("*")
        if not star:
            return name == start
        return len(name) > len(start) + len(end) and name.startswith(start) and name.endswith(end)


HOSTS = (
    Host("api.openai.com", "openai", variable="OPENAI_BASE_URL", base_path="/v1", root="/v1"),
    Host("*.api.openai.com", "openai"),
    Host("api.anthropic.com", "anthropic", variable="ANTHROPIC_BASE_URL", root="/v1"),
    Host("generativelanguage.googleapis.com", "gcp.gemini", "google", variable="GOOGLE_GEMINI_BASE_URL"),
    Host("aiplatform.googleapis.com", "gcp.vertex_ai", "google"),
    Host("*-aiplatform.googleapis.com", "gcp.vertex_ai", "google"),
    Host("*.rep.googleapis.com", "gcp.vertex_ai", "google", watched=False),
    Host("bedrock-runtime*.amazonaws.com", "aws.bedrock", "aws"),
    Host("bedrock-runtime*.amazonaws.com.cn", "aws.bedrock", "aws"),
    Host("bedrock-runtime*.amazonaws.eu", "aws.bedrock", "aws"),
    Host("bedrock-runtime*.api.aws", "aws.bedrock", "aws"),
    Host("bedrock-mantle*.api.aws", "aws.bedrock", "aws"),
    Host("*.openai.azure.com", "azure.ai.openai", "azure"),
    Host("*.cognitiveservices.azure.com", "azure.ai.openai", "azure", watched=False),
    Host("*.services.ai.azure.com", "azure.ai.inference", "azure"),
    Host("*.models.ai.azure.com", "azure.ai.inference", "azure"),
    Host("api.cohere.com", "cohere", variable="CO_API_URL"),
    Host("api.cohere.ai", "cohere"),
    Host("api.deepseek.com", "deepseek"),
    Host("api.groq.com", "groq"),
    Host("*.ml.cloud.ibm.com", "ibm.watsonx.ai"),
    Host("api.mistral.ai", "mistral_ai", "mistral"),
    Host("codestral.mistral.ai", "mistral_ai", "mistral"),
    Host("api.moonshot.ai", "moonshot_ai", "moonshotai"),
    Host("api.moonshot.cn", "moonshot_ai", "moonshotai"),
    Host("api.perplexity.ai", "perplexity"),
    Host("api.x.ai", "x_ai", "x-ai"),
    # The convention has no words for those below.
    Host("api.cerebras.ai", "cerebras"),
    Host("api.deepinfra.com", "deepinfra"),
    Host("api.fireworks.ai", "fireworks_ai", "fireworks"),
    Host("router.huggingface.co", "hugging_face"),
    Host("api-inference.huggingface.co", "hugging_face"),
    Host("integrate.api.nvidia.com", "nvidia"),
    Host("ollama.com", "ollama"),
    Host("openrouter.ai", "openrouter"),
    Host("api.sambanova.ai", "sambanova"),
    Host("api.together.xyz", "together_ai", "together"),
    Host("api.together.ai", "together_ai", "together"),
    Host("api.z.ai", "zai"),
)
"""The first row that a name fits tells of it."""


def is_loopback(name: str) -> bool:
    """Return whether that host is this machine, as itself."""
    return name in ("localhost", "::1", "[::1]") or name.startswith("127.")
