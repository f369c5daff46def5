"""Repairs: which change, and how little of it, turns a failed run into one that succeeds."""
