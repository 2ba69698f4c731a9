#!/usr/bin/env bash
# Boots stock Debian kernels in QEMU and runs the end-to-end tests of tests/netns in them.
#
#   tests/kernels.sh [--brief] [KERNEL…] [-- ARGUMENT…]   a KERNEL is 5.10, 6.1, 6.12 or sid (Debian's newest);
#                                                         default, and `all`: all of them
#
# Without more, all tests run, also those that are ignored elsewhere, but those of tests/kernels/left-out, which are
# named at the end with their reasons. --brief runs a few of each kind, most of them on 6.12. The arguments after --
# go to the test binary instead: parts of tests' names, --skip. With NODEFWD_TEST_FAST_PATH=auto all tests run with
# the fast path on. As root.
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

# It takes modules away from the kernel, so it has one of its own.
alone=readme::recipes::the_modules_are_all_that_it_needs

# left_out KERNEL: the tests that do not run there, a line `NAME REASON` for each.
left_out() {
    awk -v kernel="$1" '$1 == kernel || $1 == "all" { sub(/^[^ ]+ +/, ""); print }' tests/kernels/left-out
}

# A name that no test has any more leaves out nothing, or another test.
known=$("$tests" --list)
while read -r name _; do
    [[ $known == *"$name: test"* ]] || die "tests/kernels/left-out: there is no test '$name'"
done < <(grep -v '^#' tests/kernels/left-out | cut -d' ' -f2-)

# What the guest runs before the tests.
before=''
# write_job ARGUMENT…: what the guest runs.
write_job() {
    printf '%sNODEFWD_BIN=%q RUST_BACKTRACE=0 %s %q' "$before" "$release_binary" "$fast_path" "$tests" >"$work/job"
    printf ' %q' --color=never --test-threads=4 "$@" >>"$work/job"
}

# run KERNEL ARGUMENT…: boots it once; notes how it went.
results=()
failed=()
run() {
    local kernel=$1
    shift
    write_job "$@"
    boot "$kernel" || failed+=("$kernel")
    results+=("$kernel: $(sed -n 's/^test result: //p' "$work/$kernel/said")")
}

# run_all KERNEL: all tests.
run_all() {
    local arguments=(--include-ignored --skip "$alone") names=() name reason
    while read -r name reason; do
        names+=("$1: left out: $name: $reason")
        arguments+=(--skip "$name")
    done < <(left_out "$1")
    # The first tests too are to find its sysctls (Net::new).
    before='modprobe nf_conntrack && ' run "$1" "${arguments[@]}"
    run "$1" --ignored "$alone"
    results+=("${names[@]}")
}

for kernel in "${kernels[@]}"; do
    bring "$kernel"
    if [[ $brief ]]; then
        mapfile -t chosen < <(brief_tests "$kernel" | tr ' ' '\n')
        run "$kernel" "${chosen[@]}" "$@"
    elif [[ $# -gt 0 ]]; then
        run "$kernel" "$@"
    else
        run_all "$kernel"
    fi
done
printf '%s\n' "${results[@]}"
[[ ${#failed[@]} -eq 0 ]] || die "tests failed on ${failed[*]}"
