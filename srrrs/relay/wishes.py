"""What an agent asks for when it registers a service, and whether its token may have that."""

from __future__ import annotations

from dataclasses import dataclass

from srrrs.protocol.frames import NAMED_KINDS, Register
from srrrs.relay.names import check_label
from srrrs.relay.refusal import Refusal, RefusalCode
from srrrs.relay.reservation import Key, shared_key
from srrrs.relay.scope import PortRange, Scope
from srrrs.relay.tunnels import AgentTunnel
from srrrs.relay.urls import PublicNames


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, within what the token may have.

    :ivar name: as the directory has it: a label or a whole host; None: any label.
    :ivar ports: where a port may be.
    """

    key: Key
    name: str | None = None
    path: str = ""
    ports: tuple[PortRange, ...] = ()


class Wishes:
    """Reads registrations.

    :param tcp_ports: lowest and highest public port.
    """

    def __init__(self, names: PublicNames, tcp_ports: PortRange) -> None:
        self._names = names
        self._tcp_ports = tcp_ports

    def of(self, agent: AgentTunnel, frame: Register) -> Wish:
        """What a registration asks for.

        :raises Refusal: there can be no such service, or the token may not have it.
        """
        token = agent.identity
        key = Key(token.token_id, agent.hello.instance, frame.name)
        if frame.kind not in NAMED_KINDS:
            ports = token.scope.ports_within(*self._tcp_ports)
            if not ports:
                raise Refusal(RefusalCode.SCOPE, "this token may have no port of this relay's")
            return Wish(key, ports=ports)
        name = self._name(frame)
        self._check(token.scope, name)
        path = frame.path or ""
        if frame.share:
            if name is None:
                raise Refusal(RefusalCode.NAME_INVALID, "what is shared must be asked for by name")
            key = shared_key(token.token_id, frame.kind, name, path)
        return Wish(key, name, path)

    def _name(self, frame: Register) -> str | None:
        if frame.hostname is None:
            if frame.asked is not None:
                # One with a dot would pass for a whole host.
                check_label(frame.asked, ())
            return frame.asked
        if self._names.is_control_host(frame.hostname):
            raise Refusal(
                RefusalCode.NAME_RESERVED, f"the host {frame.hostname} belongs to the relay"
            )
        return self._names.name_of(frame.hostname)

    def _check(self, scope: Scope, name: str | None) -> None:
        domain = self._names.domain
        if name is None:
            what, allowed = "names of the relay's choice", scope.allows_any_name(domain)
        else:
            what = self._names.host_of(name)
            allowed = scope.allows_host(what, domain)
        if allowed:
            return
        if scope.hosts is None:
            own = f"names directly under {domain}"
        else:
            own = ", ".join(scope.hosts) or "no host at all"
        raise Refusal(RefusalCode.SCOPE, f"this token may not have {what}: it is for {own}")
