#!/usr/bin/env bash
# Measures nodefwd beside others that forward ports, all in one run and on the same hosts made of
# network namespaces. Prints tables; writes results.json and results.svg next to itself. As root, on
# a machine with nothing else to do; takes about ten minutes.
# --quick: one short round of everything, to try it; writes nothing.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup.sh"
[[ $EUID -eq 0 ]] || die "the benchmarks make network namespaces: run me as root"

packages=(iperf3 haproxy nginx-light libnginx-mod-stream apache2-utils conntrack python3-minimal)
mapfile -t missing < <(missing_packages)
# Debian starts the servers that it installs; here they only run inside namespaces.
[[ ${#missing[@]} -eq 0 ]] || RUNLEVEL=1 install_packages "${missing[@]}"

cargo build --release --locked
export NODEFWD_BIN=$release_binary PATH=$PATH:/usr/sbin:/sbin
/usr/bin/python3 benches/measure.py "$@"
[[ ${1:-} == --quick ]] || /usr/bin/python3 benches/chart.py
