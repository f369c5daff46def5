"""Added time per call of Anthropic's SDK beside each vendor's own instrumentation: bare, the vendor's, ours, both.

It needs the dependency group `vendors`; a vendor that is not installed is left out. All take turns in blocks, each in an
agent process of its own, so that drift of the machine falls on all alike.
"""

from __future__ import annotations

import importlib.util
import statistics

from asking import agents, ask
from report import Figure, report

ROUNDS, BLOCK = 15, 40
VENDORS = {
    "OpenTelemetry's own": "opentelemetry.instrumentation.anthropic",
    "OpenInference": "openinference.instrumentation.anthropic",
    "Logfire": "logfire",
}
"""What each needs, by its name."""

AGENT = r"""
import json, sys, time
vendor, ours, url, store = sys.argv[1:5]
import anthropic
from opentelemetry import trace
if vendor == "Logfire":
    import logfire
    logfire.configure(send_to_logfire=False, console=False)
    logfire.instrument_anthropic()
elif vendor:
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
    if vendor == "OpenInference":
        from openinference.instrumentation.anthropic import AnthropicInstrumentor
    else:
        from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
    AnthropicInstrumentor().instrument()
if ours:
    from tracefork_otel import TraceforkInstrumentor
    TraceforkInstrumentor().instrument(store=store, http_spans=False)
client = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0)
asked = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * 2000}]}
def call():
    client.messages.create(**asked)
for _ in range(20):
    call()
for line in sys.stdin:
    times = []
    for _ in range(BLOCK):
        started = time.perf_counter_ns(); call(); times.append(time.perf_counter_ns() - started)
    print(json.dumps(times), flush=True)
""".replace("BLOCK", str(BLOCK))


def main() -> None:
    vendors = [name for name, module in VENDORS.items() if _is_there(module)]
    if not vendors:
        print("no vendor is installed here: pip install --group vendors")
        return
    kinds = [(vendor, ours) for vendor in ("", *vendors) for ours in ("", "ours")]
    with agents(AGENT, kinds) as running:
        times: dict[tuple[str, str], list[int]] = {kind: [] for kind in kinds}
        for _ in range(ROUNDS):
            for kind in kinds:
                times[kind] += ask(running[kind], "call")
    us = {kind: statistics.median(found) / 1e3 for kind, found in times.items()}
    bare, alone = us["", ""], us["", "ours"]
    figures = [Figure("call of the SDK, ours over bare", alone / bare, "×", 1.35, note=f"bare {bare:.0f} µs")]
    for vendor in vendors:
        own, both = us[vendor, ""], us[vendor, "ours"]
        note = f"{vendor} adds {own - bare:.0f} µs, ours {alone - bare:.0f} µs, both {both - bare:.0f} µs"
        figures.append(
            Figure(f"call of the SDK, {vendor} and ours over {vendor}", both / own, "×", 1.35, note=note)
        )
    report("vendors", figures)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
