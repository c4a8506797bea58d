#!/bin/sh
# Makes configure from configure.ac; needed after a clone, not from a release archive.
# SPDX-License-Identifier: Apache-2.0
set -e
cd "$(dirname "$0")"
mkdir -p m4 build-aux
exec autoreconf --install --warnings=all
