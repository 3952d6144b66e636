"""Names the reactor, for `twistd --reactor=srrrs`."""

from twisted.application.reactors import Reactor

srrrs = Reactor("srrrs", "srrrs.net.reactor", "uvloop, with connections on its own transports.")
