"""``twistd srrrs-relay``, for twistd to find."""

from twisted.application.service import ServiceMaker

relay = ServiceMaker(
    "srrrs relay",
    "srrrs.tap.relay",
    "The public end of reverse tunnels: gives services an address.",
    "srrrs-relay",
)
