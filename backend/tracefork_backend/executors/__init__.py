"""Where jobs run: engines that others wrote, each a `concurrent.futures.Executor`."""
