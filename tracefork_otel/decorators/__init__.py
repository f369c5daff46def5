"""`@agent` and `@tool`, and the program that starts a function as an agent."""
