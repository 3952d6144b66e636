"""Runs Twisted's own reactor tests on one reactor, in this process, and prints what they said.

Usage: python -m tests.reactor.conformance REACTOR

REACTOR is the full name of a reactor class, or of what stands for one in
`twisted.internet.test.reactormixins`.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

MODULES = (
    "test_core",
    "test_default",
    "test_fdset",
    "test_process",
    "test_stdio",
    "test_tcp",
    "test_threads",
    "test_time",
    "test_tls",
    "test_udp",
    "test_udp_internals",
    "test_unix",
)


def run(reactor: str) -> dict[str, Any]:
    """The names of the tests that passed, were skipped, and failed; the reactor's own name is
    left out of them."""
    from twisted.internet.test.reactormixins import ReactorBuilder

    # The modules make their test cases for these when they are imported.
    ReactorBuilder._reactors = [reactor]

    from twisted.trial.reporter import VerboseTextReporter
    from twisted.trial.runner import TestLoader, TestSuite, TrialRunner

    name = reactor.rsplit(".", 1)[-1]
    passed: list[str] = []

    class Reporter(VerboseTextReporter):  # type: ignore[misc]
        def addSuccess(self, test: Any) -> None:
            passed.append(test.id())
            super().addSuccess(test)

    loader = TestLoader()
    suite = TestSuite([loader.loadByName(f"twisted.internet.test.{m}", True) for m in MODULES])
    log = io.StringIO()
    result = TrialRunner(Reporter, stream=log).run(suite)

    def names(tests: Any) -> list[str]:
        return sorted({test.replace(name, "Reactor") for test in tests})

    bad = [*result.failures, *result.errors]
    return {
        "ran": result.testsRun,
        "passed": names(passed),
        "skipped": names(test.id() for test, _ in result.skips),
        "failed": names(test.id() for test, _ in bad),
        "log": log.getvalue()[-20_000:] if bad else "",
    }


if __name__ == "__main__":
    report = run(sys.argv[1])
    print("\n" + json.dumps(report))
    # Threads and processes of the tests have no say in how this ends.
    sys.stdout.flush()
