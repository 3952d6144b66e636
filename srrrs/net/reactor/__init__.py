"""A fast reactor: Twisted on uvloop's own transports."""
