"""A recorded run started again: replays, forks, what they change and how they are accounted for."""
