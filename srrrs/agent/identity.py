"""Which machine this is, for the relay: the default of ``--instance``, and the ids of runs.

The agent has nowhere to write, so the default is worked out afresh each time from what the system
keeps anyway. It is a keyed hash: the relay learns neither the machine's id nor the user, as
machine-id(5) asks of applications.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Where the machine's id is (machine-id(5)); the second is D-Bus's, on systems without systemd.
MACHINE_ID_FILES: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
#: Keys the hash to this application and use (machine-id(5): "should be hashed with a
#: cryptographic, keyed hash function, using a fixed, application-specific key").
_KEY: Final = b"srrrs instance v1"
#: Bytes of the hash that make an instance: 128 bits.
_SIZE: Final = 16
#: Seconds that macOS's ioreg may take.
_IOREG_TIMEOUT: Final = 5.0

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_PLATFORM_UUID = re.compile(r'"IOPlatformUUID"\s*=\s*"([0-9A-Fa-f-]{36})"')


def new_run() -> str:
    """A random id for one tunnel's owner: 128 bits, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def default_instance(
    machine: Callable[[], str] | None = None, user: Callable[[], str] | None = None
) -> str:
    """The instance of this machine and user: 32 hexadecimal digits, the same at every start.

    :param machine: gives what tells this machine from others; default :func:`machine_id`.
    :param user: gives what tells this user from others; default :func:`user_id`.
    """
    material = f"{(machine or machine_id)()}\0{(user or user_id)()}".encode()
    return hmac.new(_KEY, material, hashlib.sha256).hexdigest()[: 2 * _SIZE]


def user_id() -> str:
    """The user's number where there are numbers, else the name."""
    getuid = getattr(os, "getuid", None)
    if getuid is not None:
        return str(getuid())
    return os.environ.get("USERNAME", "")


def machine_id(files: tuple[Path, ...] = MACHINE_ID_FILES) -> str:
    """What tells this machine from others.

    In this order: machine-id(5); on macOS ``IOPlatformUUID``; else the host's name and the
    address of a network interface. The last changes with either of them: such a machine should be
    given ``--instance``. Two clones of one disk share a machine id, and so an instance.
    """
    for path in files:
        try:
            text = path.read_text("ascii", errors="replace").strip().lower()
        except OSError:
            continue
        # "uninitialized" stands there while a system boots for the first time.
        if _MACHINE_ID.fullmatch(text) and set(text) != {"0"}:
            return text
    if sys.platform == "darwin":
        found = _platform_uuid()
        if found is not None:
            return found
    return f"{socket.gethostname()} {uuid.getnode():012x}"


def _platform_uuid() -> str | None:
    try:
        shown = subprocess.run(
            ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"],
            capture_output=True,
            timeout=_IOREG_TIMEOUT,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = _PLATFORM_UUID.search(shown)
    return match.group(1).lower() if match else None
