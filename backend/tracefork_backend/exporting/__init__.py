"""The views as tables that other engines read, brought up to date by what is new."""
