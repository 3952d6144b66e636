"""What is wrong with a message."""

from __future__ import annotations


class BadRequest(Exception):
    """The request cannot be served; nothing after it on its connection can be read.

    :ivar status: of the answer, after which the connection closes.
    :ivar text: a line for the page; holds nothing that the visitor sent.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class BadResponse(Exception):
    """The response cannot be passed on, and nothing after it on its connection can be read.

    :ivar text: what is wrong, for the log; holds nothing that was sent.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
