"""What Python loads first in scripts that tests run: whoever turns to the network ends there."""

import os
import sys

# Not the making of a socket, by which urllib3 looks for IPv6 when it is imported
CONTACTS = {"connect", "getaddrinfo", "gethostbyname", "sendto", "sendmsg"}


def forbid(event, _):
    """End the process, which no except clause can hold up, at any contact by a socket."""
    room, _, name = event.partition(".")
    if room == "socket" and name in CONTACTS:
        os.write(2, f"{event}: no script but the download turns to the network\n".encode())
        os._exit(99)


sys.addaudithook(forbid)
