"""`python -m tracefork_backend.simulate`: the model server as a process, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from tracefork_otel.errors import UsageError

from ..network.addresses import bind
from .behaviours import load
from .server import ModelServer

# Answers that run when the server is told to end may still end themselves.
_GRACE_S = 2.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tracefork_backend.simulate", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--tries", type=int, default=1, help="how many ports to try, counting up")
    parser.add_argument("--behaviour", default="booking", help="a name in behaviours, or pkg.mod:function")
    parser.add_argument("--seed", type=int, help="makes ids and randomness the same every time")
    parser.add_argument("--share-port", action="store_true", help="let several servers hold the port")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends, too")
    return parser.parse_args()


def _stop_at_eof(server: ModelServer) -> None:
    # On the descriptor itself: a buffered reader's lock would be held at exit, which Python takes for fatal.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        while stdin.read(4096):
            pass
    server.stop()


def main() -> int:
    """Serve until told to end; return the exit status, 2 where it could not begin."""
    arguments = _arguments()
    try:
        behaviour = load(arguments.behaviour)
        listener = bind(port=arguments.port, tries=arguments.tries, shared=arguments.share_port)
    except (LookupError, UsageError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    server = ModelServer(behaviour, seed=arguments.seed, listener=listener, grace_s=_GRACE_S)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    if arguments.until_eof:
        threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
    print(f"listening on {server.url}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
