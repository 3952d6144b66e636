"""A reactor on uvloop whose connections are the event loop's own transports.

Protocols, factories and endpoints run on it unchanged, and several times faster.  Importing this
package installs nothing, and needs no uvloop.
"""

from srrrs.net.reactor.install import install, install_default

__all__ = ["install", "install_default"]
