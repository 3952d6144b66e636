"""A small ssh server that publishes itself: ``conch_server.py ENDPOINT HOST_KEY USER_KEY``.

It knows one user key and runs no commands of the system: the command ``shout TEXT`` answers in
capitals, any other is echoed with its input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.interfaces import ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.cred.portal import IRealm, Portal
from twisted.internet import endpoints, reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ISession)
class Commands:
    """Runs a command and ends the session."""

    def __init__(self, avatar: Any) -> None:
        self.avatar = avatar

    def execCommand(self, protocol: Any, command: bytes) -> None:
        word, _, rest = command.partition(b" ")
        peer = protocol.session.conn.transport.transport.getPeer()
        answer = rest.upper() if word == b"shout" else repr(peer).encode()
        protocol.session.write(answer + b"\n")
        protocol.session.conn.sendRequest(protocol.session, b"exit-status", b"\0\0\0\0")
        protocol.session.loseConnection()

    def getPty(self, *_: Any) -> None:
        """There is none."""

    def openShell(self, *_: Any) -> None:
        raise NotImplementedError

    def windowChanged(self, *_: Any) -> None:
        """There is no window."""

    def eofReceived(self) -> None:
        """Commands read nothing."""

    def closed(self) -> None:
        """Nothing is left to end."""


class User(ConchUser):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channelLookup[b"session"] = SSHSession


@implementer(IRealm)
class Realm:
    def requestAvatar(self, name: Any, mind: Any, *interfaces: Any) -> Any:
        user = User()
        return interfaces[0], user, lambda: None


def main(description: str, host_key: str, user_key: str, user: str) -> None:
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    from twisted.python.components import registerAdapter

    registerAdapter(Commands, User, ISession)
    keys = InMemorySSHKeyDB({user.encode(): [Key.fromString(Path(user_key).read_bytes())]})
    factory: Any = SSHFactory()
    factory.portal = Portal(Realm(), [SSHPublicKeyChecker(keys)])
    key = Key.fromFile(host_key)
    factory.publicKeys = {key.sshType(): Key.fromFile(host_key).public()}
    factory.privateKeys = {key.sshType(): key}

    def listening(port: Any) -> None:
        print(f"published at {port.getHost().url}", flush=True)

    def failed(failure: Failure) -> None:
        print(f"not published: {failure.getErrorMessage()}", flush=True)
        reactor.stop()

    endpoint = endpoints.serverFromString(reactor, description)
    endpoint.listen(factory).addCallbacks(listening, failed)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
