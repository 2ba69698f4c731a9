#!/bin/sh
# Prints the licences of all that is linked into the program, which require that their text comes with it, and
# where the sources of its libraries are. On the Debian that has just built it, with its crates alone.
set -eu
cat "$(dirname "$(realpath "$0")")/third-party.txt"
cd "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/
tail -n +1 */LICENSE-MIT */LICENSE \
    /usr/share/doc/libc6-dev/copyright /usr/share/doc/libmnl-dev/copyright \
    /usr/share/doc/libnftnl-dev/copyright /usr/share/doc/libstd-rust-dev/copyright
dpkg-query -Wf '${source:Package} ${source:Version}\n' libnftnl-dev libmnl-dev libc6-dev
