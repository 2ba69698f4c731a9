#!/usr/bin/env bash
# Compares nodefwd, with and without its fast path, with other ways to forward on stock Debian kernels in QEMU.
# Writes kernels.json, and with it README.md and kernels.svg, into this folder. As root.
#
#   benches/kernels.sh [--rounds=NUMBER] [KERNEL…]   a KERNEL is 6.1, 6.12 (the default) or sid, Debian's newest
#
# --quick: one round, to try it; writes no file.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup.sh"
guest_packages=(iperf3 nginx-light apache2-utils conntrack ethtool ipvsadm python3)
# shellcheck source=tests/kernels/boot.sh
source tests/kernels/boot.sh
# While the guest works, its clock counts the instructions of its one processor, one a nanosecond: what else this
# machine does changes no figure.
# shellcheck disable=SC2034 # boot reads it
emulator=(-accel tcg,thread=single -icount shift=0 -smp 1)

rounds=7 quick='' kernels=()
for argument in "$@"; do
    case $argument in
        --quick) quick=--quick rounds=1 ;;
        --rounds=*) rounds=${argument#*=} ;;
        *)
            [[ ${suites[$argument]:-} ]] || die "there is no kernel '$argument' here: 6.1, 6.12 or sid"
            kernels+=("$argument")
            ;;
    esac
done
[[ ${#kernels[@]} -gt 0 ]] || kernels=(6.12)

cargo build --release --locked
mkdir -p "$work"
printf 'NODEFWD_BIN=%q PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 benches/kernel.py %q\n' \
    "$release_binary" "$rounds" >"$work/job"
failed=()
for kernel in "${kernels[@]}"; do
    bring "$kernel"
    # The last line is long, and for the next step.
    if boot "$kernel" > >(grep -v --line-buffered '^results: '); then
        /usr/bin/python3 benches/record.py "$kernel" "$work/$kernel/said" $quick
    else
        failed+=("$kernel")
    fi
done
[[ $quick ]] || {
    /usr/bin/python3 benches/chart.py
    /usr/bin/python3 benches/report.py >benches/README.md
}
[[ ${#failed[@]} -eq 0 ]] || die "failed on ${failed[*]}"
