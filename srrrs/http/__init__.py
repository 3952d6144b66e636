"""HTTP/1 messages, pure: bytes in, messages out; no sockets, clock or Twisted."""
