"""A process that imports an agent once and forks a supervised child for each trial.

Started by path, by `pool.py`, with the agent's environment and `TRACEFORK_MODE=off`. Its first argument is
the descriptor of a socket on which it is told what to import, says `ready` or `refused`, and then gets, for
each trial, the four descriptors that `supervisor.py` would be started with. When the socket closes, it ends.

An agent that is a function is imported with its module. Of one that is a program only what is installed is:
its own files are read in each child, which then runs it as Python would have.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib.util
import io
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from . import supervisor
else:
    # By path like this file: the agent may have a module of that name.
    _FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor.py")
    _SPEC = importlib.util.spec_from_file_location("tracefork_supervisor", _FILE)
    supervisor = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(supervisor)

_MESSAGE = 64 * 1024
_CLIENTS = ("httpx2", "httpx")
_SEAMS = {
    **dict.fromkeys(_CLIENTS, "seam.patch"),
    "urllib3": "seam.pooled",
    "aiohttp": "seam.connected",
    "websockets": "seam.socketed",
}
"""What wraps a client that the agent imported."""
_OF_TRIALS = (
    "decorators.agent",
    "draws.blaming",
    "private.start",
    "private.started",
    "seam.children",
    "seam.leaks",
    "seam.playing",
    "seam.resting",
    "session.cells",
    "session.family",
    "session.otel",
    "session.processor",
    "session.stand_in",
    "session.unsampled",
)
"""Modules of ours that a trial which asks a model needs: loading them takes some 20 ms."""
_OF_SDKS = ("opentelemetry.propagate",)
"""What SDKs of models load with their first call: some 5 ms."""
_DESCRIPTORS = 4
# OpenTelemetry's own workers: the SDK starts them anew in a forked child.
_OWN_THREADS = "Otel"
_INET = (socket.AF_INET, socket.AF_INET6)


Work: TypeAlias = "Callable[[Any], int]"
"""What a trial does: given the recorded arguments, the exit status."""


class Refusal(Exception):
    """Why the agent cannot be forked."""


class _Guard:
    """Stops what must not happen while the agent is imported: in a fork it would be served from the tape."""

    def __init__(self) -> None:
        self.active = True
        self.seen: str | None = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.active and args[0].family in _INET:
            self.seen = f"it connects to {args[1][0]}:{args[1][1]} while it is imported"
            raise ConnectionRefusedError(f"tracefork: {self.seen}")
        if event == "sqlite3.connect" and self.active:
            from tracefork_otel.private.databases import database_of

            path = database_of(args[0])
            if path is not None:
                self.seen = f"its import opens a database ({path}), which forks would share"
                raise PermissionError(f"tracefork: {self.seen}")


def main() -> None:
    """Fork trials until the director hangs up."""
    control = socket.socket(fileno=int(sys.argv[1]))
    order: dict[str, Any] = json.loads(control.recv(_MESSAGE))
    program = order["program"]
    # What a fresh start would show: names of services and commands follow from it.
    if program is None:
        # In place of this file's own folder, as `python -m` has it: an agent imports from where it starts.
        sys.path[0] = os.getcwd()
        sys.orig_argv[:] = [sys.executable, "-m", "tracefork_otel.decorators.main", order["entrypoint"]]
        sys.argv[:] = [sys.argv[0], order["entrypoint"]]
    else:
        _begin(program)
    try:
        if order["draws"]:
            _draw(order["tape"])
        with _guarded(control.fileno()):
            work = _function(order["entrypoint"]) if program is None else _program(program)
        _prepare(order["tape"])
    except Refusal as why:
        control.send(json.dumps({"refused": str(why)[:4000]}).encode())
        return
    gc.collect()
    gc.freeze()  # else the collector would touch, and so copy, every page in every child
    control.send(json.dumps({"ready": os.getpid()}).encode())
    _fork_trials(control, work)
    _leave(0)  # without taking apart what was imported: somebody waits for the end


def _draw(tape: str) -> None:
    """Let the agent's modules read the recorded clocks and randomness while they are imported."""
    from pathlib import Path

    from tracefork_otel.draws import drawing
    from tracefork_otel.settings import Settings
    from tracefork_otel.tape.tape import Tape

    outside = os.path.dirname(os.path.realpath(__file__)) + os.sep
    drawing.prepare(Tape.load(Path(tape)).draws, Settings.from_env().draws_include, (outside,))


@contextlib.contextmanager
def _guarded(control: int) -> Iterator[None]:
    """Raise Refusal where what is imported within the block leaves something that children would share."""
    guard = _Guard()
    sys.addaudithook(guard)
    try:
        yield
    except Refusal:
        raise
    except BaseException as error:
        shown = "".join(traceback.format_exception_only(error)).strip()
        raise Refusal(guard.seen or f"it cannot be imported ({shown})") from None
    finally:
        guard.active = False
    if guard.seen is not None:
        raise Refusal(guard.seen)
    for problem in (_threads(), _sockets(control), _children(), _caches()):
        if problem is not None:
            raise Refusal(problem)


def _function(entrypoint: str) -> Work:
    from tracefork_otel.decorators import main as agent_main

    function = agent_main.find(entrypoint)

    def work(arguments: Any) -> int:
        from tracefork_otel import launch

        launch.boot("agent")
        return agent_main.call_once(function, arguments)

    return work


def _begin(program: dict[str, Any]) -> None:
    """Show what Python shows of a program that it runs: its words, and where modules come from."""
    runs, of = program["runs"], program["of"]
    sys.orig_argv[:] = [sys.executable, *program["argv"][1:]]
    sys.argv[:] = [of if runs == "script" else runs, *program["arguments"]]
    if not sys.flags.safe_path:
        folder = os.path.dirname(os.path.realpath(of)) if runs == "script" else os.getcwd()
        sys.path[0] = "" if runs == "-c" else folder


def _program(program: dict[str, Any]) -> Work:
    from tracefork_otel.session.imported import is_below_installed

    before = set(sys.modules)
    with open(program["imported"]) as file:
        steps = json.load(file)
    for step in steps:
        if isinstance(step, dict):
            for name, value in step.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        elif step not in sys.modules:
            importlib.import_module(step)
    for name in set(sys.modules) - before:
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or not spec.has_location or name.startswith("tracefork_"):
            continue
        if not is_below_installed(spec.origin):
            raise Refusal(f"what is installed imports a module of the agent's own ({name})")
    unforkable = next((name for name in _REPLACING if name in sys.modules), None)
    if unforkable is not None:
        raise Refusal(f"it uses {unforkable}, which has to come before everything else")

    def work(arguments: Any) -> int:
        from tracefork_otel import launch

        _take_input()
        launch.boot("sitecustomize")
        return _run(program)

    return work


_REPLACING = ("gevent.monkey", "eventlet.patcher")
"""Modules by which a program changes those that are imported after them."""


def _take_input() -> None:
    """Have a standard input as Python makes it of what this process was given."""
    old = sys.__stdin__
    if old is not None:
        given = open(0, "rb", closefd=False)  # noqa: SIM115 (it lasts as long as the process)
        sys.stdin = io.TextIOWrapper(given, encoding=old.encoding, errors=old.errors)
        sys.__stdin__ = sys.stdin  # type: ignore[misc]


def _run(program: dict[str, Any]) -> int:
    """Run the program as `__main__`; return its exit status."""
    from tracefork_otel import private_names as names

    runs, of = program["runs"], program["of"]
    module: Any = ModuleType("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    try:
        if runs == "-m":
            getattr(runpy, names.RUN_MODULE)(of)
        elif runs == "-c":
            exec(compile(of, "<string>", "exec", dont_inherit=True), module.__dict__)
        else:
            path = os.path.join(os.getcwd(), of)  # as Python has it, with a `./` left in
            module.__file__, module.__cached__ = path, None
            module.__loader__ = SourceFileLoader("__main__", path)
            with io.open_code(path) as file:
                source = file.read()
            exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        own = error.with_traceback(_own_frames(error.__traceback__))
        sys.excepthook(type(own), own, own.__traceback__)
        return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the program's own first frame on."""
    own = trace
    while own is not None and (
        own.tb_frame.f_code.co_filename == __file__ or own.tb_frame.f_globals is vars(runpy)
    ):
        own = own.tb_next
    return own or trace


def _threads() -> str | None:
    others = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.name.startswith(_OWN_THREADS)
    ]
    return (
        f"its import starts threads ({', '.join(others[:3])}), which a fork would not have"
        if others
        else None
    )


def _sockets(control: int) -> str | None:
    """Return why two children would share a connection, and so read each other's answers, or None."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return "this system does not show which connections it holds"
    for name in names:
        descriptor = int(name)
        with contextlib.suppress(OSError):
            if descriptor == control or not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                where = _where(copy)
            if where is not None:
                return f"its import leaves {where} open, which two forks would share"
    return None


def _caches() -> str | None:
    """Return why children would share a cache on disk, which each has for itself where it is made later."""
    from tracefork_otel.private.caches import KNOWN

    found = next((one.module for one in KNOWN if one.module in sys.modules), None)
    return None if found is None else f"its import opens a cache on disk ({found}), which forks would share"


def _where(copy: socket.socket) -> str | None:
    with contextlib.suppress(OSError):
        peer = copy.getpeername()
        if copy.family in _INET:
            return f"a connection to {peer[0]}:{peer[1]}"
        return f"a connection to {peer}" if peer else None  # a pair without names is nobody else's
    return "a socket" if copy.family in _INET else None


def _children() -> str | None:
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        if file.read().split():
            return "its import starts processes, which a fork would share"
    return None


def _prepare(tape: str) -> None:
    """Load what each child would load anew."""
    from pathlib import Path

    from tracefork_otel.play import loading, sdks
    from tracefork_otel.seam import authorities
    from tracefork_otel.store import wal  # noqa: F401
    from tracefork_otel.undo import Undo
    from tracefork_otel.wire.registry import registered

    registered()
    played = loading.load_tape(Path(tape))
    sdks.prepare(played.exchanges)
    seams = {seam for name, seam in _SEAMS.items() if name in sys.modules}
    if seams:
        for module in (*_OF_TRIALS, *sorted(seams)):
            importlib.import_module(f"tracefork_otel.{module}")
        for module in _OF_SDKS:
            with contextlib.suppress(Exception):  # settings of the user's choose what it loads
                importlib.import_module(module)
    undo = Undo()
    authorities.put_off(undo)
    for name in _CLIENTS:
        client = sys.modules.get(name)
        if client is not None:
            # Its transport, and what that stands on, are imported by the first client, which also finds out
            # that its authorities can be read: some 50 ms.
            with contextlib.suppress(Exception):
                client.Client().close()
            importlib.import_module("encodings.idna")
    undo.take_back()


def _fork_trials(control: socket.socket, work: Work) -> None:
    trials: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, _DESCRIPTORS)
        for pid in list(trials):
            if os.waitpid(pid, os.WNOHANG)[0]:
                trials.discard(pid)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            _supervise(descriptors, work)
        trials.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(descriptors: list[int], work: Work) -> NoReturn:
    """See one trial to its end, with all that it started, and tell the director; then end this process."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        supervisor.adopt_orphans()
        control, *streams = descriptors
        _Forking(socket.socket(fileno=control), work).watch(*streams)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


class _Forking(supervisor.Supervisor):
    """Watches over a child forked from here, in place of a command."""

    def __init__(self, director: socket.socket, work: Work) -> None:
        super().__init__(director)
        self._work = work

    def start(self, spec: dict[str, Any], *streams: int) -> bool:
        """Fork a child that does the agent's work in a session of its own."""
        above = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)  # asyncio did so in this child already, since Python 3.12
            os.close(self.wake_w)
            os.close(self.wake_r)
            self.director.close()
            _become_trial(above, streams, spec, self._work)
        self.child = pid
        for descriptor in streams:
            os.close(descriptor)
        self.say(started=pid)
        return True


def _become_trial(above: int, streams: Sequence[int], spec: dict[str, Any], work: Work) -> NoReturn:
    """Do the agent's work; this process ends as a fresh one would, but for its teardown."""
    status = 1
    try:
        os.setsid()
        supervisor.die_with_parent()
        if os.getppid() != above:
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(spec["env"])
        _seed()
        status = _status_of(lambda: work(spec["arguments"]))
    finally:
        _leave(status)


def _status_of(call: Callable[[], int]) -> int:
    try:
        return call()
    except SystemExit as leaving:
        code = leaving.code
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        print(code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1


def _seed() -> None:
    # `random` does so itself in a forked child; trials that shared a state would not be independent.
    numpy_random: Any = sys.modules.get("numpy.random")
    # With draws its state is the recorded one, up to the fork point.
    if numpy_random is not None and "tracefork_otel.draws.drawing" not in sys.modules:
        numpy_random.seed()


def _leave(status: int) -> NoReturn:
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # threads that an interpreter's end waits for
        atexit._run_exitfuncs()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
