"""Where HTTP clients are watched: recording, serving from a tape, and what goes round both."""
