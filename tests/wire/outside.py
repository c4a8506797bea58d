"""What a gate is from outside: descriptors, listening sockets, files, settings."""
# SPDX-License-Identifier: Apache-2.0
import hashlib
import os

LISTEN = "0A"


def descriptors(pid):
    """{number: what it is}."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError: # closed meanwhile
            pass
    return found


def listening(pid):
    """The addresses and paths at which the process listens."""
    inodes = {text[8:-1] for text in descriptors(pid).values() if text.startswith("socket:[")}
    found = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{name}", encoding="ascii") as f:
            for row in list(f)[1:]:
                words = row.split()
                if words[3] == LISTEN and words[9] in inodes:
                    found.add((name, words[1]))
    with open(f"/proc/{pid}/net/unix", encoding="utf-8") as f:
        for row in list(f)[1:]:
            words = row.split()
            if words[6] in inodes and len(words) > 7 and int(words[3], 16) & 0x10000:
                found.add(("unix", words[7]))
    return found


def files(*folders, but=()):
    """{path: (inode, mode, digest)} of everything in these folders. Files named in `but` may grow."""
    found = {}
    for folder in folders:
        for at, inner, names in os.walk(folder):
            for name in inner + names:
                path = os.path.join(at, name)
                st = os.lstat(path)
                digest = None
                if os.path.isfile(path) and name not in but:
                    with open(path, "rb") as f:
                        digest = hashlib.sha256(f.read()).hexdigest()
                found[path] = (st.st_ino, st.st_mode, digest)
    return found


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))
