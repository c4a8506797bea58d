"""Signing keys, JWKS, tokens and SCRAM verifiers, made without the gate's help.

A second opinion on what `postern token`, `postern jwks` and `postern scram` make, and the
means to forge what they would never make.
"""
# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import time

from .proc import StandError, run

ISSUER = "https://login.stand.example"
AUDIENCE = "postern"

_GENERATE = {
    "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "ES384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
    "RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "PS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "EdDSA": ["-algorithm", "ED25519"],
}
_CURVES = {"ES256": ("P-256", 32), "ES384": ("P-384", 48)}


def b64u(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _openssl(argv, stdin=b""):
    done = subprocess.run(["openssl", *argv], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    if done.returncode != 0:
        raise StandError(f"openssl {argv[0]}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _der(raw, at=0):
    """(tag, content, position after it) of one DER element."""
    tag, length, at = raw[at], raw[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(raw[at:at + count], "big")
        at += count
    return tag, raw[at:at + length], at + length


def _raw_signature(der, size):
    """ECDSA's SEQUENCE { r, s } as the r||s of fixed size that JOSE wants."""
    body = _der(der)[1]
    _, r, at = _der(body)
    s = _der(body, at)[1]
    return b"".join(int.from_bytes(n, "big").to_bytes(size, "big") for n in (r, s))


class Key:
    """One signing key in a PEM file."""

    def __init__(self, path, kid, alg, make=True):
        self.path, self.kid, self.alg = path, kid, alg
        if make and alg.startswith("HS"):
            with open(path, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as f:
                f.write(secrets.token_bytes(64))
        elif make:
            run(["openssl", "genpkey", *_GENERATE[alg], "-out", path])
            os.chmod(path, 0o600)

    def sign(self, data):
        if self.alg.startswith("HS"):
            with open(self.path, "rb") as f:
                return hmac.new(f.read(), data, "sha" + self.alg[2:]).digest()
        if self.alg == "EdDSA":
            scratch = f"{self.path}.{secrets.token_hex(4)}.tbs"
            try:
                with open(scratch, "wb") as f:
                    f.write(data)
                return _openssl(["pkeyutl", "-sign", "-rawin", "-inkey", self.path, "-in", scratch])
            finally:
                os.unlink(scratch)
        argv = ["dgst", f"-sha{self.alg[2:]}", "-sign", self.path]
        if self.alg.startswith("PS"):
            argv += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
        signature = _openssl(argv, data)
        if self.alg in _CURVES:
            signature = _raw_signature(signature, _CURVES[self.alg][1])
        return signature

    def jwk(self):
        """The public half as RFC 7517 has it."""
        row = {"kid": self.kid, "use": "sig", "alg": self.alg}
        if self.alg.startswith("HS"):
            with open(self.path, "rb") as f:
                return {"kty": "oct", **row, "k": b64u(f.read())}
        der = _openssl(["pkey", "-in", self.path, "-pubout", "-outform", "DER"])
        info = _der(der)[1]
        bits = _der(info, _der(info)[2])[1][1:]
        if self.alg == "EdDSA":
            return {"kty": "OKP", "crv": "Ed25519", **row, "x": b64u(bits)}
        if self.alg in _CURVES:
            crv, size = _CURVES[self.alg]
            return {"kty": "EC", "crv": crv, **row, "x": b64u(bits[1:1 + size]),
                    "y": b64u(bits[1 + size:])}
        numbers = _der(bits)[1]
        _, n, at = _der(numbers)
        e = _der(numbers, at)[1]
        return {"kty": "RSA", **row, "n": b64u(n.lstrip(b"\0")), "e": b64u(e.lstrip(b"\0"))}


def write_jwks(path, keys):
    text = json.dumps({"keys": [k.jwk() for k in keys]}, indent=2) + "\n"
    mode = 0o600 if any(k.alg.startswith("HS") for k in keys) else 0o644
    scratch = path + ".new"
    with open(scratch, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, mode)) as f:
        f.write(text)
    os.replace(scratch, path)


def claims(tenant, roles, lifetime=86400, /, **more):
    """The payload the stand's issuer writes; None removes a claim."""
    now = int(time.time())
    body = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"{tenant}-application", "iat": now,
            "exp": now + lifetime, "jti": secrets.token_hex(8), "tenant": tenant,
            "roles": [roles] if isinstance(roles, str) else roles}
    body.update(more)
    return {k: v for k, v in body.items() if v is not None}


def _compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def token(key, payload, header=None):
    """Signs a payload (object or raw bytes) with a header of the caller's choice."""
    head = {"alg": key.alg, "typ": "JWT", "kid": key.kid}
    head.update(header or {})
    head = {k: v for k, v in head.items() if v is not None}
    body = payload if isinstance(payload, bytes) else _compact(payload)
    text = f"{b64u(_compact(head))}.{b64u(body)}"
    return f"{text}.{b64u(key.sign(text.encode()))}"


def scram_verifier(password, iterations=4096):
    """What PostgreSQL keeps in pg_authid (RFC 5803 in all but name)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.new(salted, b"Client Key", "sha256").digest()
    server = hmac.new(salted, b"Server Key", "sha256").digest()
    b64 = base64.b64encode
    return (f"SCRAM-SHA-256${iterations}:{b64(salt).decode()}"
            f"${b64(hashlib.sha256(client).digest()).decode()}:{b64(server).decode()}")
