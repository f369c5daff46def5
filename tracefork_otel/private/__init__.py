"""An agent that runs again works on copies of its files: where it names one of them, its own copy is used."""
