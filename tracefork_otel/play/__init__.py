"""Answers from a tape: pure matching, serving and intervening, without any client."""
