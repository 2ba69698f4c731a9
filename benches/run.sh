#!/usr/bin/env bash
# Measures nodefwd beside its peers and writes benches/results.json and benches/results.svg. As root,
# on a machine with nothing else to do; takes about ten minutes. --quick: one short round.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup.sh"
[[ $EUID -eq 0 ]] || die "the benchmarks make network namespaces: run me as root"

# Debian starts the servers that it installs; here they are only run inside namespaces.
for package in iperf3 haproxy nginx-light libnginx-mod-stream apache2-utils python3-minimal; do
    dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        RUNLEVEL=1 install_packages "$package"
done
cargo build --release --locked
PATH=${release_binary%/*}:/usr/sbin:/sbin:$PATH
export NODEFWD=$release_binary
/usr/bin/python3 benches/measure.py "$@"
/usr/bin/python3 benches/chart.py
