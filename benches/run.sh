#!/usr/bin/env bash
# Compares nodefwd with other programs that forward ports, all in one run and between the same hosts
# made of network namespaces. Prints README.md; writes it, results.json and results.svg into this
# folder. As root, on a machine that does nothing else; takes 9 to 12 minutes.
# --quick: one short round of everything, in about a minute, to try it; writes no file.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup.sh"
[[ $EUID -eq 0 ]] || die "the benchmarks make network namespaces: run me as root"

packages=(iperf3 haproxy nginx-light libnginx-mod-stream apache2-utils conntrack python3)
mapfile -t missing < <(missing_packages)
# Debian starts the servers that it installs; here they only run inside namespaces.
[[ ${#missing[@]} -eq 0 ]] || RUNLEVEL=1 install_packages "${missing[@]}"

cargo build --release --locked
# A copy, as every other program here is installed: out of the file that the linker wrote it starts more slowly.
install -D "$release_binary" target/benches/nodefwd
export NODEFWD_BIN=$PWD/target/benches/nodefwd PATH=$PATH:/usr/sbin:/sbin
/usr/bin/python3 benches/measure.py "$@"
[[ ${1:-} != --quick ]] || exit 0
/usr/bin/python3 benches/chart.py
/usr/bin/python3 benches/report.py >benches/README.md
