"""kosoku's command line, with a repair.

kosoku 0.1 hands a case the messages that came compressed as bytes and those that did not as a str
of code points below 256. The cases of 12.* and 13.* hash them, which fails for a str, although a
server may leave a message uncompressed at any time (RFC 7692 §6).
"""

from __future__ import annotations

import importlib
from typing import Any

from kosoku._caseindex import initialize_shims
from kosoku._cli import main


def take_uncompressed_messages() -> None:
    """Let the compression cases take a str as the bytes that it stands for."""
    initialize_shims()
    module = importlib.import_module("case12_x_x")
    on_message = module.onMessage

    def on_any_message(self: Any, msg: str | bytes, binary: bool) -> None:
        on_message(self, msg.encode("latin-1") if isinstance(msg, str) else msg, binary)

    for case in (*module.Case12_X_X, *module.Case13_X_X):
        case.onMessage = on_any_message


if __name__ == "__main__":
    take_uncompressed_messages()
    main()
