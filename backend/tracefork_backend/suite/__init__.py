"""Runs beside tests: a pytest plugin that gives a marked test the answers of its tape."""
