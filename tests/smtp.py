"""A mail server for tests: keeps each mail as a file in a folder, and ends when its input does.

usage: smtp.py FOLDER; prints the port of the loopback address that it listens on
"""

import asyncio
import os
import sys

from aiosmtpd.smtp import SMTP


class Keep:
    """Writes mails down."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        path = os.path.join(self.folder, f"{self.count:04}")
        with open(path, "wb") as file:
            file.write("\n".join(envelope.rcpt_tos).encode() + b"\n")
            file.write(envelope.content)
        # Whole, or not there.
        os.rename(path, path + ".eml")
        return "250 kept"


async def main(folder):
    loop = asyncio.get_running_loop()
    keep = Keep(folder)
    server = await loop.create_server(lambda: SMTP(keep, hostname="localhost"), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main(sys.argv[1]))
