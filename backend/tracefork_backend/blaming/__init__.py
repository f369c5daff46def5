"""Which step lost the run: a search that asks for forks, and statistics that hold at any stopping time."""
