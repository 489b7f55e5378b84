"""Fetching a file: resumed after a break, retried with patience, verified before it counts."""

import itertools
import os
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests

from utils.command import InputError, Progress
from utils.files import cannot_write, file_sha256, lock_folder, reading

ATTEMPTS = 5  # in a row that bring nothing
BACKOFF = 1.0  # seconds before the first retry, doubled for each further one
TIMEOUT = (10, 30)  # seconds to connect, and between two packets
PIECE = 1 << 16  # bytes written at a time: no more are lost by a break
OTHER_WAYS = "edit ARCHIVE_URL, or use --archive FILE or --demo"


def download_archive(url, path, size, sha256):
    """Download the archive unless `path` holds it already; resume what an earlier try left.

    size: bytes, to count up to; sha256: hex digits, verified before the file gets its name.
    Raises InputError if the server cannot be reached, has no such file, or sends another one, and
    if another process fetches into the same folder; what was fetched so far stays beside `path` in
    a .part file.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    if path.exists():
        with reading(path, f"move it away, {OTHER_WAYS}"):
            held = file_sha256(path)
        if held == sha256:
            print(f"{path}: here already, and verified")
            return
        raise InputError(
            f"{path}: not the archive that this script expects (another SHA-256); delete it to"
            f" download again, or use it as it is with --archive {path}"
        )
    with lock_folder(path.parent):
        try:
            resumed = part.exists()
            fetch(url, part, size)
            if resumed and file_sha256(part) != sha256:  # the old piece was of another file
                part.unlink()
                fetch(url, part, size)
            if file_sha256(part) != sha256:
                other = path.with_name(f"{path.stem}.unverified{path.suffix}")
                os.replace(part, other)
                raise InputError(
                    f"{url}: the file has changed: {other.stat().st_size:,} bytes and another"
                    f" SHA-256 than expected; run again to retry, look at it and accept it with"
                    f" --archive {other}, or try --demo"
                )
            os.replace(part, path)
        except BrokenPipeError:  # of what is printed meanwhile
            raise
        except OSError as error:
            raise cannot_write(path, error) from error


def fetch(url, part, size):
    """Append to the file `part` what it lacks of `url`, over as many requests as that takes.

    Connection errors, time-outs and statuses 5xx and 429 are retried with backoff; what will not
    mend by itself, such as a certificate that is not valid, is refused at once.
    """
    progress = Progress("download, kB", size // 1000)
    ways_on = "run again to go on where it stopped, or use --archive FILE or --demo"
    failures = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            if fetch_rest(url, part, have, size, progress):
                progress.end()
                return
            problem = "the connection broke off"
        except requests.HTTPError as error:
            status = error.response.status_code
            problem = f"the server answers {status} {error.response.reason}"
            if status < 500 and status != 429:
                raise InputError(f"{url}: {problem}; if it has moved, {OTHER_WAYS}") from error
        except requests.RequestException as error:
            problem = f"no connection ({type(error).__name__})"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                problem = "its certificate is not valid, so it may be another server"
                raise InputError(f"{url}: {problem}; {OTHER_WAYS}") from error
            if isinstance(error, (ValueError, requests.TooManyRedirects)):  # no address, or a ring
                raise InputError(f"{url}: {problem}; {OTHER_WAYS}") from error
        except ValueError as error:  # of a header that is none
            problem = "the server's answer is none that a server gives"
            raise InputError(f"{url}: {problem}; {OTHER_WAYS}") from error
        grown = part.exists() and part.stat().st_size > have
        failures = 1 if grown else failures + 1
        if failures >= ATTEMPTS:
            raise InputError(f"{url}: {problem}, {failures} times in a row; {ways_on}")
        wait = BACKOFF * 2 ** (failures - 1)
        progress.end()
        print(f"download: {problem}; next try in {wait:.0f} s", flush=True)
        time.sleep(wait)


def fetch_rest(url, part, have, size, progress):
    """Make one request for what follows the first `have` bytes; return whether `part` is whole.

    It is if it has as many bytes as the server announces, or `size`, where the server does not say.
    Raises requests.HTTPError for a status of 400 and above, but for 416 behind a first piece, which
    nothing follows; and InputError for a web page, for a redirect to a place that is less safe, and
    for a body of more than twice `size`, which may be without end.
    """
    headers = {"Accept-Encoding": "identity"}  # the lengths below are those of the file itself
    if have:
        headers["Range"] = f"bytes={have}-"
    request = {"headers": headers, "timeout": TIMEOUT, "hooks": {"response": check_redirect}}
    with requests.get(url, stream=True, **request) as response:
        if response.status_code == 416 and have:
            return True
        response.raise_for_status()
        ranged = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status_code != 206 or not ranged:  # the whole file, not the rest
            have = 0
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and "Content-Encoding" not in response.headers:
            expected = have + int(announced)
        else:
            expected = size
        progress.done = have // 1000
        chunks = response.iter_content(PIECE)
        first = next(chunks, b"")
        if not have and first.lstrip().startswith(b"<"):
            raise InputError(
                f"{url}: sends a web page instead of the file, perhaps to log in; open it in a"
                f" browser to see, {OTHER_WAYS}"
            )
        with open(part, "ab" if have else "wb") as file:
            for chunk in itertools.chain([first], chunks):
                file.write(chunk)
                progress.advance(file.tell() // 1000 - progress.done)
                if file.tell() > 2 * size:
                    break
    if part.stat().st_size > 2 * size:
        part.unlink()
        raise InputError(
            f"{url}: sends more than twice the {size:,} bytes expected, so another file;"
            f" {OTHER_WAYS}"
        )
    return part.stat().st_size >= expected


def check_redirect(response, *_, **__):
    """Raise InputError for a response that redirects from https to less, or to no server at all.

    Its body is not read: it may be without end.
    """
    if response.is_redirect:
        response.close()
        target = urljoin(response.url, response.headers["Location"])
        before, after = (urlsplit(address).scheme for address in (response.url, target))
        if after != "https" and (after, before) != ("http", "http"):
            raise InputError(
                f"{response.url}: redirects to {target}, which is not safe; {OTHER_WAYS}"
            )
