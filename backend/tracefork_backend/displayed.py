"""What a notebook shows of a value: a piece of HTML that loads nothing and runs nothing."""

from __future__ import annotations

from importlib import import_module


class Displayed:
    """A value that a notebook shows as the page does."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        # By its name: the page stands above all that it shows.
        return import_module("tracefork_backend.page.notebook").html(self)
