"""`serve`: receive spans by OTLP from any SDK or Collector."""

from __future__ import annotations

from .flags.options import STORE, HostOption, PortOption, RedactOption, StoreOption
from .opening import recordable
from .output import say


def serve(
    store: StoreOption = STORE,
    port: PortOption = 4318,
    host: HostOption = "127.0.0.1",
    redact: RedactOption = None,
) -> int:
    """Receive spans by OTLP/HTTP into the store, until Ctrl-C."""
    from tracefork_otel.redaction.redact import with_rules
    from tracefork_otel.settings import Settings

    from ..network.addresses import bind, is_loopback
    from ..network.receiver import Receiver
    from ..network.server import until_signalled

    recordable(store)
    settings = with_rules(Settings.from_env(), redact)
    listener = bind(host, port)
    receiver = Receiver(listener, store=store, host=host, settings=settings)
    if not is_loopback(host):
        say(f"warning: everyone who reaches {host} can write into {store}")
    with until_signalled(receiver):
        say(
            f"tracefork-otel: OTLP/HTTP on http://{host}:{receiver.port}, into {store}; stop it with Ctrl-C\n"
            f"  OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:{receiver.port} "
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
        receiver.run()
    say(f"tracefork-otel: {receiver.spans} spans received, {receiver.exchanges} of them exchanges")
    return 0
