"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from jaeger import jaeger

__all__ = ["jaeger"]
