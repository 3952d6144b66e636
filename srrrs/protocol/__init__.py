"""The tunnel protocol, pure: bytes, events and ``now`` in; bytes, events and deadlines out.

Nothing here knows of sockets, clocks, logging or Twisted. The wire format is in ``SPEC.md``.
"""
