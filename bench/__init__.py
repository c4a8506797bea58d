"""Postern beside PgBouncer: the same load, the same database, one after the other."""
# SPDX-License-Identifier: Apache-2.0
