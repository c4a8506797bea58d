"""The stand: a cluster, Redis, keys and gates, built in a directory and ended by pid.

./quickstart and the wire tests share it. Only Python's standard library, OpenSSL's command
line, PostgreSQL 15 and Redis are needed.
"""
# SPDX-License-Identifier: Apache-2.0
