"""An executor by its name on the command line."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from tracefork_otel.errors import UsageError

_P = ParamSpec("_P")
_T = TypeVar("_T")

FORMS = "process, ray, dask://HOST:PORT or PKG.MOD:FACTORY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An executor, and how many jobs it works on at a time; None where it does not tell."""

    executor: Executor
    width: int | None


class _Ray(Executor):
    """A Ray cluster as an executor."""

    def __init__(self, ray: Any, options: Mapping[str, Any]) -> None:
        self._ray, self._options = ray, options

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Return what will come of the call."""
        return self._ray.remote(**self._options)(_called).remote(fn, args, kwargs).future()


def _called(fn: Callable[..., _T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> _T:
    """Return what the call does: Ray itself takes no function that is written in C."""
    return fn(*args, **kwargs)


def ray_executor(**options: Any) -> Executor:
    """Return the Ray cluster that `ray.init` connected to as an executor; connect to the default one if none.

    `options` are those of `ray.remote` for each job, such as `num_cpus=0.5` or `runtime_env={…}`. Raises
    UsageError where Ray is not installed.
    """
    ray = _installed("ray", "Ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    # A worker that dies has spent its share: no job is made a second time behind the budget's back.
    return _Ray(ray, {"max_retries": 0, **options})


@contextmanager
def opened(name: str) -> Iterator[Engine]:
    """Give the executor of that name within the block; UsageError where there is none."""
    if name == "process":
        with _processes(os.cpu_count() or 1) as executor:
            yield Engine(executor=executor, width=os.cpu_count() or 1)
    elif name == "ray":
        executor = ray_executor()
        width = int(_installed("ray", "Ray").cluster_resources().get("CPU", 1))
        yield Engine(executor=executor, width=max(1, width))
    elif name.startswith("dask://"):
        with _dask(name.removeprefix("dask://")) as engine:
            yield engine
    else:
        with _made(name) as engine:
            yield engine


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    # Not forked: this process has threads, and what a thread holds would be held in the child for ever.
    executor = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    before = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()  # what it runs ends with it
        raise
    executor.shutdown()


@contextmanager
def _dask(address: str) -> Iterator[Engine]:
    distributed = _installed("distributed", "Dask")
    try:
        client = distributed.Client(f"tcp://{address}")
    except (OSError, ValueError) as error:
        raise UsageError(f"--executor dask://{address}: no scheduler answers there ({error})") from error
    with client:
        threads = sum(client.nthreads().values())
        # As with Ray.
        yield Engine(executor=client.get_executor(retries=0), width=max(1, threads))


@contextmanager
def _made(name: str) -> Iterator[Engine]:
    module, _, factory = name.partition(":")
    if not module or not factory:
        raise UsageError(f"--executor {name}: use {FORMS}")
    try:
        make: Any = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--executor {name}: {error}") from error
    made: Any = make()
    if not isinstance(made, Executor):
        raise UsageError(
            f"--executor {name}: {factory}() gives {type(made).__name__}, which is no "
            "concurrent.futures.Executor"
        )
    with made:
        yield Engine(executor=made, width=None)


def _installed(module: str, called: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{called} is not installed ({error}): pip install {module}") from error
