"""What comes in over the network: agents' requests through the proxy, and spans by OTLP."""
