"""The part of ./quickstart that comes after installing and building."""
# SPDX-License-Identifier: Apache-2.0
import argparse
import os
import shlex
import shutil
import sys
import tempfile

from . import proc, stand as stands, tokens
from .proc import StandError, tail
from .show import Show
from .stand import METERED_QPS, Stand


def environment(stand, gate):
    """The names of DIR/env: what a driver, a benchmark or a person needs to use the stand."""
    pg = stand.postgres
    direct = "acme_rw"
    ca = stand.authority.crt
    return {
        "GATE_HOST": "localhost", "GATE_PORT": gate.port(), "GATE_SSLROOTCERT": ca,
        "GATE_OAUTH_PORT": gate.port("oauth"), "GATE_SOCKET_DIR": gate.sockets,
        "ACME_DB": "acme", "ACME_SESSION_DB": "acme_session", "ACME_POOL1_DB": "acme_pool1",
        "ACME_USER": "acme_rw", "ACME_TOKEN": stand.mint("acme", "rw"),
        "ACME_LONG_TOKEN": stand.mint("acme", "rw", pad=1400),
        "ACME_RO_USER": "acme_ro", "ACME_RO_TOKEN": stand.mint("acme", "ro"),
        "GLOBEX_DB": "globex", "GLOBEX_SESSION_DB": "globex_session", "GLOBEX_USER": "globex_rw",
        "GLOBEX_TOKEN": stand.mint("globex", "rw"),
        "METERED_DB": "metered", "METERED_USER": "metered_rw",
        "METERED_TOKEN": stand.mint("metered", "rw"), "METERED_QPS": METERED_QPS,
        "SCRAM_USER": stand.scram_user, "SCRAM_PASSWORD": stand.scram_password, "SCRAM_DB": "acme",
        "SIGNING_KEY": stand.signing_key.path, "SIGNING_KID": stand.signing_key.kid,
        "SIGNING_ALG": stand.signing_key.alg, "JWKS": stand.jwks, "JWT_ISSUER": tokens.ISSUER,
        "JWT_AUDIENCE": tokens.AUDIENCE, "JWT_TENANT_CLAIM": "tenant",
        "CONFIG": gate.config, "POSTERN_PID": gate.pid, "POSTERN": stand.binary,
        "HTTP_URL": gate.http_url,
        "CONSOLE_DSN": proc.conninfo(host="localhost", port=gate.port(), user=stand.admin_user,
                                     dbname="postern", sslmode="verify-full", sslrootcert=ca),
        "CONSOLE_PASSWORD": stand.admin_password,
        "REDIS_PORT": stand.redis.port, "REDIS_PID": stand.redis.process.pid,
        "REDIS_PASSWORD": stand.redis.password,
        "DIRECT_HOST": "localhost", "DIRECT_PORT": pg.port, "DIRECT_USER": direct,
        "DIRECT_PASSWORD": pg.passwords[direct], "DIRECT_DB": "acme",
        "DIRECT_SSLMODE": "verify-full", "DIRECT_SSLROOTCERT": ca,
        "DIRECT_SUPERUSER": pg.superuser, "DIRECT_SUPERUSER_PASSWORD": pg.passwords[pg.superuser],
        "NODE_PORTS": " ".join(str(n.port) for n in stand.nodes),
        "NODE_PIDS": " ".join(str(n.pid) for n in stand.nodes),
    }


def write_environment(path, names):
    text = "# A running Postern stand, for the shell: `. " + path + "`\n"
    text += "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in names.items())
    with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(text)


def up(args):
    proc.exit_on_signals()
    if args.dir:
        stands.clear(args.dir)
        folder = os.path.abspath(args.dir)
    else:
        folder = tempfile.mkdtemp(prefix="postern-quickstart-")
        os.chmod(folder, 0o755)
    print(f"\n== A stand-in for a three-node cluster, Redis and the gate, in {folder}", flush=True)
    stand = Stand(folder, args.build)
    gate = None
    try:
        stand.start(pgbench_scale=args.scale if args.keep else None,
                    say=lambda text: print(f"   {text}", flush=True))
        for attempt in range(3):
            # The ports are the system's choice but written down, so that they stay over a restart.
            gate = stand.gate(name="gate", fixed_ports=True)
            try:
                gate.start()
                break
            except StandError as e:
                if attempt == 2 or "in use" not in str(e).lower():
                    raise
                stand.gates.remove(gate)
        print(f"   Postern {gate.pid}: port {gate.port()}, {gate.http_url}, {gate.config}",
              flush=True)
        show = Show(stand, gate)
        if not args.no_show:
            show.all()
        if args.keep:
            if not args.no_show:
                show.restore()
            write_environment(os.path.join(folder, "env"), environment(stand, gate))
            stand.leave_running()
            print(f"\n== It all runs. Use it:  . {shlex.quote(os.path.join(folder, 'env'))}\n"
                  f"   PGPASSWORD=$ACME_TOKEN psql \"host=$GATE_HOST port=$GATE_PORT user=$ACME_USER "
                  f"dbname=$ACME_DB \\\n     sslmode=verify-full sslrootcert=$GATE_SSLROOTCERT\"\n"
                  f"   End it:  ./quickstart --down --dir {shlex.quote(folder)}")
            return 0
        print("\n== The end", flush=True)
        stand.stop()
        print("   everything that was started has ended")
    except (StandError, OSError) as e:
        print(f"\nFAILED: {e}", file=sys.stderr)
        if gate:
            print(f"\nThe end of the gate's log:\n{tail(gate.log_file, 30)}{tail(gate.stderr, 30)}",
                  file=sys.stderr)
        print("Everything that was started is being ended.", file=sys.stderr)
        try:
            stand.stop()
        except StandError as more:
            print(more, file=sys.stderr)
        return 1
    finally:
        proc.stop_everything()
        if not args.dir:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def down(args):
    forced = stands.end(args.dir)
    print(f"== The stand in {args.dir} has ended")
    print(f"   Its files are still there, keys and passwords among them. Remove them:  rm -rf {shlex.quote(os.path.abspath(args.dir))}")
    if forced:
        print("   these had to be killed: " + ", ".join(forced), file=sys.stderr)
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(prog="quickstart")
    parser.add_argument("--build", required=True, help="the build directory")
    parser.add_argument("--dir", help="where the stand lives (default: a temporary directory)")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--down", action="store_true")
    parser.add_argument("--no-show", action="store_true")
    parser.add_argument("--scale", type=int, default=1, help="pgbench's scale in a kept stand")
    args = parser.parse_args()
    if (args.keep or args.down) and not args.dir:
        parser.error("--keep and --down need --dir DIR")
    try:
        return down(args) if args.down else up(args)
    except StandError as e:
        print(f"FAILED: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
