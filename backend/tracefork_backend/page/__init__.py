"""The page: a store in a browser, looked at, compared, forked and blamed on this machine."""
