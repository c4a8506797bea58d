"""Certificates, by OpenSSL's command line: an authority and what it signs."""
# SPDX-License-Identifier: Apache-2.0
import os

from .proc import run

SAN = "DNS:localhost,IP:127.0.0.1,IP:::1"
KEYS = {
    "rsa": ["-newkey", "rsa:2048"],
    "ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
}


def _req(key, crt, kind, subject, extensions, ca=None, days=30):
    argv = ["openssl", "req", "-x509", "-new", *KEYS[kind], "-nodes", "-sha256",
            "-days", str(days), "-keyout", key, "-out", crt, "-subj", subject]
    for ext in extensions:
        argv += ["-addext", ext]
    if ca:
        argv += ["-CA", ca[1], "-CAkey", ca[0]]
    run(argv)
    os.chmod(key, 0o600)


class Authority:
    """A certificate authority in a directory, and the certificates it has signed."""

    def __init__(self, folder, name="ca"):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.key = os.path.join(folder, f"{name}.key")
        self.crt = os.path.join(folder, f"{name}.crt")
        _req(self.key, self.crt, "ecdsa", f"/CN=Postern stand {name}",
             ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"])

    def server(self, name, kind, common_name="localhost", san=SAN):
        """(certificate, key) of a server."""
        return self._leaf(name, kind, f"/CN={common_name}",
                          [f"subjectAltName={san}", "extendedKeyUsage=serverAuth"])

    def client(self, name, common_name, kind="ecdsa"):
        return self._leaf(name, kind, f"/CN={common_name}", ["extendedKeyUsage=clientAuth"])

    def _leaf(self, name, kind, subject, extensions):
        key = os.path.join(self.folder, f"{name}.key")
        crt = os.path.join(self.folder, f"{name}.crt")
        _req(key, crt, kind, subject, ["basicConstraints=critical,CA:FALSE", *extensions],
             ca=(self.key, self.crt))
        return crt, key
