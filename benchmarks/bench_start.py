"""Start-up: `import tracefork_otel` over the OTel SDK, and `tracefork-otel --help`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from report import Figure, report


def seconds(*command: str, repeats: int = 9) -> float:
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    sdk = seconds("-c", "import opentelemetry.sdk.trace")
    ours = seconds(
        "-c", "import opentelemetry.sdk.trace, tracefork_otel; tracefork_otel.TraceforkInstrumentor"
    )
    helped = seconds("-m", "tracefork_backend.cli", "--help")
    report(
        "start",
        [
            Figure("import tracefork_otel over the OTel SDK", (ours - sdk) * 1e3, "ms", 100),
            Figure("tracefork-otel --help", helped, "s", 0.4),
        ],
    )


if __name__ == "__main__":
    main()
