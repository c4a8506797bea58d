"""Key sets and tokens in the form in which identity providers publish them, made with keys of our own.

Each provider has its members, their order, its kind of key names, what else its set holds, and
tokens with the claims that it writes. `tests/tools/make-key-sets.py` writes what the unit tests read.
"""
# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import json
import os
import secrets
import time
import uuid

from . import tokens
from .proc import run


def _certificate(key, name):
    """(DER) of a certificate that signs itself, as providers put into x5c."""
    done = run(["openssl", "req", "-new", "-x509", "-key", key.path, "-subj", f"/CN={name}", "-days", "3650"])
    return base64.b64decode("".join(line for line in done.stdout.splitlines() if "-----" not in line))


def _numbers(key, *names):
    row = key.jwk()
    return {name: row[name] for name in names}


class Provider:
    """One provider's set with new keys in `folder`: `jwks` (an object), `issuer` (the settings of an
    issuer's section), `accepted` and `refused` ({why: token})."""

    def __init__(self, name, folder, now=None, lifetime=3600):
        self.name, self.folder = name, folder
        self.now = int(time.time()) if now is None else now
        self.lifetime = lifetime
        os.makedirs(folder, exist_ok=True)
        self.jwks = {"keys": []}
        PROVIDERS[name](self)
        self.issuer["tenants"] = "*"

    def key(self, kid, alg="RS256"):
        return tokens.Key(os.path.join(self.folder, f"{self.name}-{secrets.token_hex(6)}.pem"), kid, alg)

    def publish(self, *members):
        self.jwks["keys"] += members

    def sign(self, key, claims, header=None, kid=None):
        body = {"iss": self.issuer["issuer"], "iat": self.now, "exp": self.now + self.lifetime, **claims}
        return tokens.token(key, body, {"kid": kid or key.kid, **(header or {})})

    def offer(self, key, claims, header=None, other=None):
        """One token that is right; ones of a stranger under that key's name, with other words than
        were signed and, when the set has a key for something else, of that key."""
        self.accepted = self.sign(key, claims, header)
        head, body, signature = self.accepted.split(".")
        changed = {**json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))), "sub": "somebody else"}
        self.refused = {
            "of a stranger under the name of a key of the set":
                self.sign(self.key(key.kid, key.alg), claims, header),
            "with other words than were signed":
                f"{head}.{tokens.b64u(json.dumps(changed).encode())}.{signature}"}
        if other:
            self.refused["of the key for encryption"] = self.sign(other, claims, header)
            self.refused["of the key for encryption under the name of the other"] = \
                self.sign(other, claims, header, kid=key.kid)

    def write(self, path):
        with open(path, "w", encoding="ascii") as f:
            json.dump(self.jwks, f, indent=2)
            f.write("\n")


def _thumbprint(digest, der):
    return tokens.b64u(hashlib.new(digest, der).digest())


def keycloak(p):
    """A realm with its default keys (RS256, and RSA-OAEP for encryption), one of each other kind that it
    offers for signatures, and ECDH-ES."""
    def named(alg):
        return p.key(tokens.b64u(secrets.token_bytes(32)), alg)

    def rsa(key, alg, use):
        der = _certificate(key, "acme")
        p.publish({"kid": key.kid, "kty": "RSA", "alg": alg, "use": use,
                   "x5c": [base64.b64encode(der).decode()], "x5t": _thumbprint("sha1", der),
                   "x5t#S256": _thumbprint("sha256", der), **_numbers(key, "n", "e")})
    p.issuer = {"issuer": "https://sso.keycloak.example/realms/acme", "audience": "postern",
                "algorithms": "RS256, ES256, EdDSA", "tenant_claim": "tenant",
                "roles_claim": "realm_access.roles"}
    signing, encryption = named("RS256"), named("RS256")
    rsa(encryption, "RSA-OAEP", "enc")
    rsa(signing, "RS256", "sig")
    for alg, use, key in (("ES256", "sig", named("ES256")), ("ECDH-ES", "enc", named("ES256"))):
        p.publish({"kid": key.kid, "kty": "EC", "alg": alg, "use": use, "crv": "P-256", **_numbers(key, "x", "y")})
    edwards = named("EdDSA")
    p.publish({"kid": edwards.kid, "kty": "OKP", "alg": "EdDSA", "use": "sig", "crv": "Ed25519",
               **_numbers(edwards, "x")})
    p.offer(signing, {
        "auth_time": p.now, "jti": f"trrtcc:{uuid.uuid4()}", "aud": ["postern", "account"], "sub": str(uuid.uuid4()),
        "typ": "Bearer", "azp": "acme-app", "acr": "1", "allowed-origins": ["https://acme.example"],
        "realm_access": {"roles": ["default-roles-acme", "offline_access", "uma_authorization", "rw"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "email profile", "email_verified": True, "tenant": "acme", "groups": ["/acme/writers"],
        "preferred_username": "service-account-acme-app"}, other=encryption)


def auth0(p):
    """The present key and the next one; claims named by URLs."""
    p.issuer = {"issuer": "https://acme.eu.auth0.example/", "audience": "https://db.acme.example",
                "algorithms": "RS256", "tenant_claim": "https://db.acme.example/tenant",
                "roles_claim": "https://db.acme.example/roles"}
    keys = [p.key(secrets.token_urlsafe(16)[:21]) for _ in range(2)]
    for key in keys:
        der = _certificate(key, "acme.eu.auth0.example")
        p.publish({"kty": "RSA", "use": "sig", **_numbers(key, "n", "e"), "kid": key.kid,
                   "x5t": _thumbprint("sha1", der), "x5c": [base64.b64encode(der).decode()], "alg": "RS256"})
    p.offer(keys[0], {
        "https://db.acme.example/tenant": "acme", "https://db.acme.example/roles": ["rw"],
        "sub": "0Hd5Vyc7Yg3@clients", "aud": ["https://db.acme.example", "https://acme.eu.auth0.example/userinfo"],
        "gty": "client-credentials", "azp": "0Hd5Vyc7Yg3", "scope": "db"})


def entra(p):
    """No alg; kid is the certificate's thumbprint; members of its own."""
    tid = str(uuid.uuid4())
    iss = f"https://login.microsoftonline.example/{tid}/v2.0"
    p.issuer = {"issuer": iss, "audience": "api://postern", "algorithms": "RS256", "tenant_claim": "tenant",
                "roles_claim": "roles"}
    keys = [p.key("") for _ in range(3)]
    for key in keys:
        der = _certificate(key, "accounts.accesscontrol.example")
        key.kid = _thumbprint("sha1", der)
        p.publish({"kty": "RSA", "use": "sig", "kid": key.kid, "x5t": key.kid, **_numbers(key, "n", "e"),
                   "x5c": [base64.b64encode(der).decode()], "cloud_instance_name": "microsoftonline.example",
                   "issuer": iss})
    p.offer(keys[1], {
        "aud": "api://postern", "nbf": p.now, "aio": "k2RgYNjfrG1QvtYu", "azp": str(uuid.uuid4()), "azpacr": "1",
        "oid": str(uuid.uuid4()), "rh": "0.AX0A", "roles": ["rw"], "sub": str(uuid.uuid4()), "tid": tid,
        "uti": "sYm0cJ8kUkW", "ver": "2.0", "tenant": "acme"})


def google(p):
    """Two keys in turn, named by hexadecimal digits; custom claims beside Google's own."""
    p.issuer = {"issuer": "https://securetoken.google.example/acme-project", "audience": "acme-project",
                "algorithms": "RS256", "tenant_claim": "tenant", "roles_claim": "roles"}
    keys = [p.key(secrets.token_hex(20)) for _ in range(2)]
    for key in keys:
        p.publish({"e": "AQAB", "kid": key.kid, "alg": "RS256", "kty": "RSA", **_numbers(key, "n"), "use": "sig"})
    p.offer(keys[1], {
        "aud": "acme-project", "auth_time": p.now, "user_id": "Zk4", "sub": "Zk4", "email": "batch@acme.example",
        "email_verified": True, "firebase": {"identities": {"email": ["batch@acme.example"]},
                                             "sign_in_provider": "custom"},
        "tenant": "acme", "roles": "rw"})


def okta(p):
    """One key; typ is absent from its tokens."""
    p.issuer = {"issuer": "https://acme.okta.example/oauth2/default", "audience": "api://default",
                "algorithms": "RS256", "tenant_claim": "tenant", "roles_claim": "groups"}
    key = p.key(tokens.b64u(secrets.token_bytes(32)))
    p.publish({"kty": "RSA", "alg": "RS256", "kid": key.kid, "use": "sig", "e": "AQAB", **_numbers(key, "n")})
    p.offer(key, {
        "ver": 1, "jti": f"AT.{secrets.token_urlsafe(32)}", "aud": "api://default", "cid": "0oa1",
        "uid": "00u1", "scp": ["db"], "auth_time": p.now, "sub": "batch@acme.example", "tenant": "acme",
        "groups": ["Everyone", "rw"]}, header={"typ": None})


def kubernetes(p):
    """An API server's /openid/v1/jwks; claims of a projected service account token, whose own member
    names have dots."""
    p.issuer = {"issuer": "https://kubernetes.default.svc.cluster.local", "audience": "postern",
                "algorithms": "RS256, ES256", "tenant_claim": "kubernetes.io.namespace",
                "roles_claim": "kubernetes.io.serviceaccount.name"}
    key, second = p.key(tokens.b64u(secrets.token_bytes(32))), p.key(tokens.b64u(secrets.token_bytes(32)), "ES256")
    p.publish({"use": "sig", "kty": "RSA", "kid": key.kid, "alg": "RS256", **_numbers(key, "n", "e")},
              {"use": "sig", "kty": "EC", "kid": second.kid, "crv": "P-256", "alg": "ES256", **_numbers(second, "x", "y")})
    p.offer(key, {
        "aud": ["postern"], "jti": str(uuid.uuid4()), "kubernetes.io": {
            "namespace": "acme", "node": {"name": "node-1", "uid": str(uuid.uuid4())},
            "pod": {"name": "app-7d9", "uid": str(uuid.uuid4())},
            "serviceaccount": {"name": "rw", "uid": str(uuid.uuid4())}, "warnafter": p.now + 3607},
        "nbf": p.now, "sub": "system:serviceaccount:acme:rw"}, header={"typ": None})


PROVIDERS = {f.__name__: f for f in (keycloak, auth0, entra, google, okta, kubernetes)}
