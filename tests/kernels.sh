#!/usr/bin/env bash
# Boots stock Debian kernels in QEMU and runs the end-to-end tests of tests/netns in them.
#
#   tests/kernels.sh [--brief] [KERNEL…] [-- ARGUMENT…]   a KERNEL is 5.10, 6.1, 6.12 or sid (Debian's newest);
#                                                         default, and `all`: all of them
#
# --brief runs a few tests of each kind, most of them on 6.12. The arguments after -- go to the test binary: parts
# of tests' names, --skip. With NODEFWD_TEST_FAST_PATH=auto all tests run with the fast path on. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
guest_packages=(wireguard-tools)
# shellcheck source=tests/kernels/boot.sh
source tests/kernels/boot.sh

brief=''
[[ ${1:-} != --brief ]] || { brief=1 && shift; }
kernels=()
while [[ $# -gt 0 && $1 != -- ]]; do
    [[ $1 == all || ${suites[$1]:-} ]] || die "there is no kernel '$1' here: 5.10, 6.1, 6.12, sid, or all"
    kernels+=("$1")
    shift
done
[[ $# -eq 0 ]] || shift
[[ ${#kernels[@]} -gt 0 && ${kernels[0]} != all ]] || kernels=(5.10 6.1 6.12 sid)

cargo build --release --locked
built=$(cargo test --locked --no-run --test netns --message-format=json 2>/dev/null)
tests=$(sed -n 's/.*"executable":"\([^"]*\/netns-[^"]*\)".*/\1/p' <<<"$built")
[[ -x $tests ]] || die "cargo does not say what it built of tests/netns"
mkdir -p "$work"
fast_path=${NODEFWD_TEST_FAST_PATH:+NODEFWD_TEST_FAST_PATH=$NODEFWD_TEST_FAST_PATH}

# brief_tests KERNEL: parts of tests' names.
brief_tests() {
    echo forwarding::traffic::
    case $1 in
        5.10) echo lifecycle::without_owner_flag::a_start ;;
        6.12)
            echo lifecycle::start_and_stop::every_ending forwarding::hairpin forwarding::source_ranges
            echo --include-ignored fast_path::selection::flows_are_taken fast_path::changes::flows_go_on
            echo fast_path::endings::a_drain fast_path::endings::flows_end
            ;;
    esac
}

# write_job ARGUMENT…: what the guest runs.
write_job() {
    printf 'NODEFWD_BIN=%q RUST_BACKTRACE=0 %s %q' "$release_binary" "$fast_path" "$tests" >"$work/job"
    printf ' %q' --color=never --test-threads=2 "$@" >>"$work/job"
}

failed=()
for kernel in "${kernels[@]}"; do
    bring "$kernel"
    chosen=()
    [[ ! $brief ]] || mapfile -t chosen < <(brief_tests "$kernel" | tr ' ' '\n')
    write_job "${chosen[@]}" "$@"
    boot "$kernel" || failed+=("$kernel")
done
[[ ${#failed[@]} -eq 0 ]] || die "tests failed on ${failed[*]}"
