"""``python -m bench.echo PORT``: a local service that sends back what it gets."""

from __future__ import annotations

import asyncio
import sys

from bench.measure import LOOPBACK, raise_files

BACKLOG = 4096


class Echo(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def _main(port: int) -> None:
    raise_files()
    server = await asyncio.get_running_loop().create_server(Echo, LOOPBACK, port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
