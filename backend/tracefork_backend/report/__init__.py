"""What a blame experiment found, as one page for people."""
