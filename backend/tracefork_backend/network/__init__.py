"""Servers and what they speak: the recording proxy, the OTLP receiver, listening sockets."""
