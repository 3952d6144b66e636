"""Build script; the metadata stand in setup.cfg.

The modules on a byte's way are compiled by mypyc, from the very sources that run without it. Where
that cannot be done they stay plain Python, and one line says so. In the environment,
``SRRRS_PURE=1`` has nothing compiled, and ``SRRRS_NATIVE=1`` makes it an error if it cannot be.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup

# Calls between them cost least where all are in one library, and all are compiled, or none is.
COMPILED = [
    "srrrs/agent/connection.py",
    "srrrs/http/errors.py",
    "srrrs/http/fields.py",
    "srrrs/http/forwarding.py",
    "srrrs/http/head.py",
    "srrrs/http/message.py",
    "srrrs/http/request.py",
    "srrrs/http/response.py",
    "srrrs/http/writing.py",
    "srrrs/net/acks.py",
    "srrrs/net/address.py",
    "srrrs/net/output.py",
    "srrrs/net/reactor/polling.py",
    "srrrs/net/splice.py",
    "srrrs/net/tunnel.py",
    "srrrs/net/websocket/binary.py",
    "srrrs/net/websocket/messages.py",
    "srrrs/protocol/backlog.py",
    "srrrs/protocol/errors.py",
    "srrrs/protocol/flow.py",
    "srrrs/protocol/frames.py",
    "srrrs/protocol/inflight.py",
    "srrrs/protocol/mux.py",
    "srrrs/protocol/scheduler.py",
    "srrrs/protocol/session.py",
    "srrrs/protocol/stream.py",
    "srrrs/relay/edge/approach.py",
    "srrrs/relay/edge/deadlines.py",
    "srrrs/relay/edge/exchange.py",
    "srrrs/relay/edge/origin.py",
]
# What is installed where it is built must not change what is built: Twisted's types are not asked
# for, and the checks are not repeated.
MYPY = [
    "--config-file=",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=skip",
    "--disallow-subclassing-any",
]
# Commands that build; a build runs this script for others too, such as egg_info.
BUILDING = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}


class NotCompiled(Exception):
    """Why the modules stay plain Python."""


def check_compiler() -> None:
    """Find out at once whether a C compiler and Python's headers are here.

    :raises NotCompiled: they are not.
    """
    if os.name == "nt":
        return  # setuptools finds it, by ways of its own.
    words = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    include = sysconfig.get_path("include")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <Python.h>\n")
        try:
            done = subprocess.run(
                [*words, f"-I{include}", "-c", str(source), "-o", f"{source}.o"],
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise NotCompiled(f"there is no C compiler ({words[0]}: {error.strerror})") from None
    if done.returncode:
        raise NotCompiled(f"{words[0]} cannot compile for this Python (are its headers here?)")


def extensions() -> list[Extension]:
    """The modules as C.

    :raises NotCompiled: they cannot be had.
    """
    if os.environ.get("SRRRS_PURE", "0") not in ("", "0"):
        raise NotCompiled("SRRRS_PURE asks for that")
    try:
        from mypyc.build import mypycify
    except ImportError:
        raise NotCompiled("mypyc, of the package mypy, is not here") from None
    check_compiler()
    try:
        made = mypycify([*MYPY, *COMPILED], opt_level="2", debug_level="0", group_name="srrrs")
    except SystemExit:
        raise NotCompiled("mypyc refuses the sources") from None
    if os.name != "nt":
        for each in made:
            # A compiler that warns of more is no reason to go without.
            each.extra_compile_args = [*each.extra_compile_args, "-Wno-error"]
    return made


def main() -> None:
    if BUILDING.isdisjoint(sys.argv):
        setup()
        return
    try:
        made = extensions()
        try:
            # What was compiled before may be of other sources, whatever its age.
            setup(ext_modules=made, options={"build_ext": {"force": True}})
        except SystemExit as error:
            print(error, file=sys.stderr)
            raise NotCompiled("the build failed") from error
    except NotCompiled as error:
        if os.environ.get("SRRRS_NATIVE", "0") not in ("", "0"):
            raise SystemExit(f"srrrs: SRRRS_NATIVE is set, but {error}") from error
        print(f"srrrs: built as plain Python, which is slower: {error}", file=sys.stderr)
        setup()


main()
