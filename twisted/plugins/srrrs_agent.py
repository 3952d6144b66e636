"""``twistd srrrs-agent``, for twistd to find."""

from twisted.application.service import ServiceMaker

agent = ServiceMaker(
    "srrrs agent",
    "srrrs.tap.agent",
    "The local end of a reverse tunnel: publishes services at a relay.",
    "srrrs-agent",
)
