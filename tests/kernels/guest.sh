#!/usr/bin/env bash
# Runs the end-to-end tests in the guest, as its first process, and powers it off. tests/kernels.sh reads
# the last line: `guest: STATUS`.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
parameter() {
    sed -n "s/.*nodefwd.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}
finish() {
    echo "guest: $1"
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}
ip link set lo up
echo "guest: $(uname -r) booted in $(cut -d' ' -f1 /proc/uptime) s"
# shellcheck source=/dev/null # written by tests/kernels.sh
source "$(parameter job)"
status=$?
# A warning of the kernel's own is a defect, ours or the kernel's: neither may pass unseen.
if dmesg | grep -E -A 20 'cut here|BUG:|Oops|WARNING|suspicious RCU'; then
    status=99
fi
finish "$status"
