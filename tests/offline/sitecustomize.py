"""What Python loads first in scripts that tests run: whoever opens a socket ends the process."""

import os
import sys


def forbid(event, _):
    """End the process, which no except clause can hold up, at any use of a socket."""
    if event.startswith("socket."):
        os.write(2, f"{event}: no script but the download touches the network\n".encode())
        os._exit(99)


sys.addaudithook(forbid)
