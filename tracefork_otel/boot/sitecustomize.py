"""Put first on PYTHONPATH by `tracefork-otel run`: boots recording, then runs the user's own sitecustomize.

Any interpreter may meet this file, so it needs nothing but an old standard library, and it never raises.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _boot():
    try:
        try:
            from tracefork_otel.launch import boot
        except ImportError:
            from tracefork_otel._launch import boot  # where it was in version 0.1.0 of the agent's package
    except ImportError as error:
        _absent(error)
        return
    boot("sitecustomize")


def _ended_by_ctrl_c(boot):
    """Run this, in which Ctrl-C ends the process without a word: nothing of the agent has begun."""
    import signal

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        except ValueError:  # in a thread of somebody's program
            ours = False
    try:
        boot()
    finally:
        if ours and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _absent(error):
    """Tell the command that started us that this interpreter records nothing."""
    store = os.environ.get("TRACEFORK_STORE")
    if not store:
        return
    import importlib.util
    import json
    import time

    def present(name):
        try:
            return importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            return False

    folder = os.path.join(store, "wal")
    if not os.path.isdir(store):
        os.makedirs(store, mode=0o700)
        os.chmod(store, 0o700)
    if not os.path.isdir(folder):
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)
    process_id = f"{os.getpid()}-{os.urandom(4).hex()}"
    parts = os.environ.get("TRACEPARENT", "").split("-")
    said = {
        "kind": "absent",
        "process_id": process_id,
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "started_ns": int(time.time() * 1e9),
        "executable": sys.executable,
        # No more than what is run: a later word may be a secret, and the rules for that are not here.
        "argv": list(getattr(sys, "orig_argv", [sys.executable]))[:2],
        "cwd": os.getcwd(),
        "mode": os.environ["TRACEFORK_MODE"],
        "via": "absent",
        "launch_id": parts[1] if len(parts) == 4 else None,
        "why": str(error),
        "httpx": present("httpx"),
        "httpx2": present("httpx2"),
    }
    path = os.path.join(folder, process_id + ".absent.json")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(said, file)


def _chain():
    """Run the next sitecustomize on the path; a tracer's may look for it too, and come by here again."""
    import importlib.machinery
    import importlib.util

    begun = sys.__dict__.setdefault("_tracefork_begun", [_HERE])
    path = [place for place in sys.path if os.path.abspath(place or ".") not in begun]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        begun.append(os.path.dirname(os.path.abspath(spec.origin or ".")))
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


try:
    if os.environ.get("TRACEFORK_MODE"):
        _ended_by_ctrl_c(_boot)
except Exception as problem:
    sys.stderr.write("tracefork: this process is not recorded: {}\n".format(problem))  # noqa: UP032
_chain()
