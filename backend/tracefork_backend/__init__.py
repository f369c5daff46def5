"""The backend: reads the store, rebuilds tapes, replays runs and answers in SQL."""
