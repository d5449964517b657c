"""Where processes of this host listen, from /proc: Linux only.

As a program it writes the addresses of its own session to a file, as JSON: `python listening.py FILE`.
"""
import contextlib
import glob
import json
import os
import socket
import struct
import sys

LISTEN = "0A"


def listening(processes):
    """Addresses, `127.0.0.1:80` or `[::]:80`, at which any of the processes listens, sorted."""
    inodes, found = _inodes(processes), set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open("/proc/net/" + name) as stream:
            for line in stream.readlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and "socket:[%s]" % fields[9] in inodes:
                    found.add(_address(*fields[1].split(":")))
    return sorted(found)


def unix_sockets(processes):
    """Paths of Unix sockets at which any of the processes listens or is connected, sorted."""
    inodes = _inodes(processes)
    with open("/proc/net/unix", errors="surrogateescape") as stream:
        rows = [line.split() for line in stream.readlines()[1:]]
    return sorted({row[7] for row in rows
                   if len(row) == 8 and row[7].startswith("/") and "socket:[%s]" % row[6] in inodes})


def below(process):
    """A process, its children, theirs and so on."""
    children = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as stream:
            parent = int(stream.read().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(path.split("/")[2]))
    found = [process]
    for parent in found:
        found += children.get(parent, [])
    return found


def of_session(session):
    """Processes of a session."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(path.split("/")[2])) == session:
                found.append(int(path.split("/")[2]))
    return found


def _inodes(processes):
    """What is open, as `socket:[12345]`."""
    found = set()
    for process in processes:
        for path in glob.glob("/proc/%d/fd/*" % process):
            with contextlib.suppress(OSError):
                found.add(os.readlink(path))
    return found


def _address(host, port):
    words = [int(host[at:at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack("=%dI" % len(words), *words)
    text = socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
    text = text.replace("::ffff:", "")         # IPv4 on a socket of IPv6, as gRPC listens
    return ("[%s]:%d" if ":" in text else "%s:%d") % (text, int(port, 16))


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        json.dump(listening(of_session(os.getsid(0))), out)
