"""`python -m tracefork_backend.cli` is the command `tracefork-otel`."""

from . import main

main()
