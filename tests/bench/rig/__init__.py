"""What stands around a measurement: programs on their cores, the upstream, the proxies, the load, and the report."""
