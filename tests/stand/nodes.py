"""The node addresses of the stand: TCP forwarders that can be killed, frozen, restarted."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess

from .proc import Process, StandError, first_line, tail


class Node:
    def __init__(self, program, name, target, log, zone):
        self.program = program
        self.name = name
        self.target = target
        self.log = log
        self.zone = zone
        self.host = "127.0.0.1"
        self.port = 0
        self.process = None

    def start(self):
        """On the first start the system chooses the port; later ones use it again."""
        if not os.path.exists(self.program):
            raise StandError(f"{self.program} was not found: build it with make")
        self.process = Process(self.name, [self.program, f"{self.host}:{self.port}", self.target],
                               self.log, stdout=subprocess.PIPE)
        line = first_line(self.process.popen.stdout, 20)
        if not line.startswith("ready "):
            self.process.stop()
            raise StandError(f"{self.name} did not start:\n{tail(self.log)}")
        self.port = int(line.split()[1])

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        self.process.kill()

    def freeze(self):
        self.process.signal(signal.SIGSTOP)

    def thaw(self):
        self.process.signal(signal.SIGCONT)

    def stop(self):
        if self.process:
            self.process.stop()

    def carries(self, local_port):
        """Whether the connection that the database sees coming from `local_port` is ours."""
        inodes = set()
        with open("/proc/net/tcp", encoding="ascii") as f:
            next(f)
            for row in f:
                fields = row.split()
                if int(fields[1].rpartition(":")[2], 16) == local_port:
                    inodes.add(f"socket:[{fields[9]}]")
        folder = f"/proc/{self.pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            return False
        for name in names:
            try:
                if os.readlink(os.path.join(folder, name)) in inodes:
                    return True
            except OSError:
                continue
        return False
