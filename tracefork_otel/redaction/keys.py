"""The forms of keys that are known by their look, as those who issue them and public scanners tell."""

from __future__ import annotations

import re
from functools import cache, lru_cache

FORMS: tuple[tuple[str, str, str], ...] = (
    # Models and what is built round them.
    ("Anthropic", "sk-ant-", r"\bsk-ant-[a-z0-9]{2,12}-[\w-]{20,}"),
    ("OpenAI", "sk-proj- sk-svcacct- sk-admin- sk-None-", r"\bsk-(?:proj|svcacct|admin|None)-[\w-]{20,}"),
    ("sk-", "sk-", r"\bsk-(?:[a-z0-9]{1,12}-){0,3}[A-Za-z0-9]{16,}[\w-]*"),
    ("Langfuse", "k-lf-", r"\b[sp]k-lf-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("Groq", "gsk_", r"\bgsk_[A-Za-z0-9]{32,}"),
    ("xAI", "xai-", r"\bxai-[A-Za-z0-9]{40,}"),
    ("Perplexity", "pplx-", r"\bpplx-[A-Za-z0-9]{32,}"),
    ("Replicate", "r8_", r"\br8_[A-Za-z0-9]{32,}"),
    ("Cerebras", "csk-", r"\bcsk-[a-z0-9]{32,}"),
    ("NVIDIA", "nvapi-", r"\bnvapi-[\w-]{40,}"),
    ("LangSmith", "lsv2_", r"\blsv2_[ps][tk]_[0-9a-f]{32}(?:_[0-9a-f]{10})?"),
    ("Pinecone", "pcsk_", r"\bpcsk_[A-Za-z0-9_]{40,}"),
    ("Tavily", "tvly-", r"\btvly-(?:dev-|prod-)?[A-Za-z0-9]{24,}"),
    ("Hugging Face", "hf_", r"\bhf_[A-Za-z0-9]{30,}"),
    # Clouds.
    ("AWS", "AKIA ASIA ABIA ACCA", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("Google API", "AIza", r"\bAIza[\w-]{35}"),
    ("Google OAuth", "ya29.", r"\bya29\.[\w-]{20,}"),
    ("Google client", "GOCSPX-", r"\bGOCSPX-[\w-]{28}"),
    ("Azure storage", "AccountKey=", r"\bAccountKey=[A-Za-z0-9+/]{60,}={0,2}"),
    ("Cloudflare origin", "v1.0-", r"\bv1\.0-[0-9a-f]{24}-[0-9a-f]{100,}"),
    ("DigitalOcean", "_v1_", r"\bdo[opr]_v1_[0-9a-f]{64}"),
    ("Databricks", "dapi", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    ("Vault", "hvs. hvb. hvr.", r"\bhv[sbr]\.[\w-]{24,}"),
    ("Terraform", ".atlasv1.", r"\b[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}"),
    ("Pulumi", "pul-", r"\bpul-[0-9a-f]{40}\b"),
    ("Doppler", "dp.", r"\bdp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{1,35}\.)?[A-Za-z0-9]{40,}"),
    ("Fly.io", "fm1 fm2", r"\bfm[12][ar]?_[A-Za-z0-9+/=]{60,}"),
    ("Tailscale", "tskey-", r"\btskey-[a-z]{2,10}-[A-Za-z0-9]{8,}-[A-Za-z0-9]{16,}"),
    ("Supabase", "sbp_ sb_secret_", r"\bsb(?:p|_secret)_[A-Za-z0-9_]{20,}"),
    ("PlanetScale", "pscale_", r"\bpscale_(?:tkn|oauth|pw)_[\w.=-]{32,}"),
    # Code and its registries.
    ("GitHub", "ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[opsur]_[A-Za-z0-9]{16,}"),
    ("GitHub fine-grained", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{16,}"),
    (
        "GitLab",
        "glpat- gldt- glrt- glcbt- glptt- glft- glimt- glagent- glsoat-",
        r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat)-[\w-]{20,}",
    ),
    ("npm", "npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI", "pypi-AgE", r"\bpypi-AgE[\w-]{50,}"),
    ("RubyGems", "rubygems_", r"\brubygems_[0-9a-f]{48}\b"),
    ("Docker", "dckr_", r"\bdckr_(?:pat|oat)_[\w-]{24,}"),
    ("CircleCI", "CCIP", r"\bCCIP(?:AT|RJ)_[A-Za-z0-9]{20,}_[0-9a-f]{40}"),
    # What people talk, pay and work with.
    ("Slack", "xoxa xoxb xoxe xoxo xoxp xoxr xoxs", r"\bxox[abeoprs](?:\.xox[abp])?-[A-Za-z0-9-]{10,}"),
    ("Slack app", "xapp-", r"\bxapp-\d-[A-Z0-9]{8,}-\d+-[a-z0-9]{32,}"),
    ("Slack webhook", "hooks.slack.com", r"\bhooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_]{30,}"),
    ("Discord webhook", "webhooks", r"\bdiscord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,}"),
    ("Telegram", ":AA", r"\b\d{8,10}:AA[\w-]{33}\b"),
    ("SendGrid", "SG.", r"\bSG\.[\w-]{20,24}\.[\w-]{39,50}"),
    ("Mailgun", "key-", r"\bkey-[0-9a-f]{32}\b"),
    ("Twilio", "SK", r"\bSK[0-9a-f]{32}\b"),
    ("Stripe", "k_live_ k_test_", r"\b[spr]k_(?:live|test)_[A-Za-z0-9]{20,}"),
    ("Stripe webhook", "whsec_", r"\bwhsec_[A-Za-z0-9+/=]{32,}"),
    ("Square", "sq0", r"\bsq0(?:atp|csp)-[\w-]{22,}"),
    ("Shopify", "shpat_ shpca_ shppa_ shpss_", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    ("Linear", "lin_api_ lin_oauth_", r"\blin_(?:api|oauth)_[A-Za-z0-9]{40,}"),
    ("Notion", "ntn_", r"\bntn_[A-Za-z0-9]{40,}"),
    ("Atlassian", "ATATT3", r"\bATATT3[\w=-]{40,}"),
    ("Figma", "figd_ figo_ figu_", r"\bfig[dou]_[\w-]{36,}"),
    ("Postman", "PMAK-", r"\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}\b"),
    ("Airtable", "pat", r"\bpat[A-Za-z0-9]{14}\.[0-9a-f]{64}\b"),
    ("Grafana", "glsa_ glc_", r"\bgl(?:sa_[A-Za-z0-9]{32}_[0-9a-f]{8}|c_[A-Za-z0-9+/=]{32,})"),
    ("Sentry", "sntrys_ sntryu_", r"\bsntry[su]_[A-Za-z0-9+/=_-]{40,}"),
    ("New Relic", "NRAK-", r"\bNRAK-[A-Z0-9]{27}\b"),
    ("PostHog", "phc_ phx_", r"\bph[cx]_[A-Za-z0-9]{40,}"),
    ("1Password", "ops_eyJ", r"(?<![\w-])ops_eyJ[\w-]{100,}"),
    # Of no one in particular.
    ("JWT", ".eyJ", r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
    ("age", "AGE-SECRET-KEY-", r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b"),
    (
        "private key",
        "-----BEGIN",
        r"-----BEGIN [A-Z ]{0,16}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\s*Proc-Type: 4,ENCRYPTED\s*DEK-Info: [A-Z0-9-]{1,16},)?[A-Za-z0-9+/=:\s\\]+"
        r"(?:-----END [A-Z ]{0,16}PRIVATE KEY(?: BLOCK)?-----)?",
    ),
)
"""Who issues the key, texts of which one stands in it, and its form, which is linear (see `growth`)."""

FIELDS = (
    *("authorization_token", "client_secret", "access_token", "refresh_token", "id_token"),
    *("client_assertion", "code_verifier", "api_key", "apiKey", "private_key"),
    *("secret_access_key", "session_token"),
)
"""Members of bodies that hold a key: those of MCP servers and of OAuth among them."""
PATHS = (
    *(f"**.{name}" for name in FIELDS),
    "tools[*].authorization",
    "tools[*].headers.*",
    "mcp_servers[*].headers.*",
)
PAIRS = tuple(rf"(?<=\b{name}=)[^&\s\"']+" for name in FIELDS)
"""The same in forms."""
_SHORTEST = 16
"""No known key is shorter."""
_TOLD = 512
"""Characters of the longest text whose outcome is kept."""


def without_keys(text: str, instead: str) -> str:
    """Return the text with whatever has the form of a known kind of key replaced."""
    if len(text) < _SHORTEST:
        return text
    return _told(text, instead) if len(text) <= _TOLD else _without(text, instead)


def _without(text: str, instead: str) -> str:
    for anchor, form in _anchored():
        if anchor in text:
            text = _compiled(form).sub(instead, text)
    return text


_told = lru_cache(1024)(_without)
"""A client asks the same URLs with each call: to look through all forms takes 5 µs."""


@cache
def _anchored() -> tuple[tuple[str, str], ...]:
    return tuple((anchor, form) for _, anchors, form in FORMS for anchor in anchors.split())


@cache
def _compiled(form: str) -> re.Pattern[str]:
    return re.compile(form)  # once it is met: all of them take some 20 ms


@cache
def forms() -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    """Return texts of which one stands in a key, and the key's form, for each form."""
    return tuple((tuple(anchors.split()), _compiled(form)) for _, anchors, form in FORMS)
