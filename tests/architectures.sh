#!/usr/bin/env bash
# usage: tests/architectures.sh [--build | --packets | --brief] [--image ARCHIVE] [--record] [ARCH…]
# Builds nodefwd and its tests for other architectures with Debian 13's cross compilers, boots Debian's own
# kernels for them in QEMU, without hardware support, and runs the tests there: unit tests and real packets
# between network namespaces. i386 runs on this machine's kernel, with all tests.
# --brief runs a few tests of each kind where it boots, --packets only tests/architectures/packets.sh, and --build none.
# --image takes the program from the archive of deploy/image.sh instead of building it.
# --record writes what came of it into tests/README.md. As root.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/debian.sh
source tests/debian.sh
[[ $EUID -eq 0 ]] || die "the test makes chroots and network namespaces: run me as root"

depth=all
case ${1:-} in --build | --packets | --brief) depth=${1#--} && shift ;; esac
archive=''
[[ ${1:-} != --image ]] || { archive=${2:?'--image takes an archive of deploy/image.sh'} && shift 2; }
record=false
[[ ${1:-} != --record ]] || { record=true && shift; }
architectures=("$@")
[[ ${#architectures[@]} -gt 0 ]] || architectures=(arm64 armhf riscv64 s390x ppc64el i386)

# shellcheck disable=SC2034 # setup.sh reads it
packages=(debootstrap)
if [[ $depth != build ]]; then
    packages+=(kmod cpio xz-utils)
    for arch in "${architectures[@]}"; do
        case $arch in
            arm64 | armhf) packages+=(qemu-system-arm) ;;
            riscv64) packages+=(qemu-system-misc opensbi) ;;
            s390x) packages+=(qemu-system-misc) ;;
            ppc64el) packages+=(qemu-system-ppc) ;;
        esac
    done
fi
mapfile -t missing < <(missing_packages)
[[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
if [[ $depth != build && $depth != packets && " ${architectures[*]} " == *' i386 '* ]]; then # as tests/run.sh
    bring_promtool
    for suite in bullseye bookworm trixie; do
        bring_nft "$suite"
    done
fi

work=$PWD/target/architectures
commit=$(git -c safe.directory='*' rev-parse HEAD 2>/dev/null) || commit=''
# shellcheck source=tests/architectures/boot.sh
source tests/architectures/boot.sh
trap end_qemu EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

SECONDS=0
step() { echo "$SECONDS s: $*"; }

# list_tests ARCH: what is run, a line for each program and part of its tests' names. Left out are tests of
# scale, of memory, and of races: they are about no architecture, and take hours in a processor that is emulated,
# or longer than the program waits for another process (of several that replace one another, for one).
list_tests() {
    echo packets.sh
    [[ $depth != packets ]] || return 0
    if [[ $1 == i386 ]]; then
        printf '%s\n' unit netns
        return
    fi
    local filter skipped=(fuzz:: many_ contention rejected)
    local filters=(forwarding::traffic forwarding::source_ranges forwarding::balance status::connections
        check::kernel::every_kind replace::starts::an_instance_that_drains lifecycle::start_and_stop)
    if [[ $depth == brief ]]; then
        skipped+=(garbage resolver::message::tests::no_bytes)
    else
        filters=(forwarding:: status:: check:: replace:: lifecycle:: encoders:: conntrack::)
    fi
    echo "unit --test-threads=2$(printf ' --skip %s' "${skipped[@]}")"
    for filter in "${filters[@]}"; do
        echo "netns --test-threads=2 $filter --skip scale --skip at_any_moment --skip hundred --skip promtool --skip of_several"
    done
}

# --- Building -----------------------------------------------------------------------------------------

# properties_of ARCH: Rust's name of it, the machine and type in the ELF header. Those without glibc's part
# for position-independent static programs are of type EXEC.
properties_of() {
    case $1 in
        arm64) echo 'aarch64-unknown-linux-gnu DYN AArch64' ;;
        armhf) echo 'armv7-unknown-linux-gnueabihf EXEC ARM' ;;
        riscv64) echo 'riscv64gc-unknown-linux-gnu DYN RISC-V' ;;
        s390x) echo 's390x-unknown-linux-gnu DYN IBM S/390' ;;
        ppc64el) echo 'powerpc64le-unknown-linux-gnu EXEC PowerPC64' ;;
        i386) echo 'i686-unknown-linux-gnu DYN Intel 80386' ;;
        *) die "unknown architecture: $1" ;;
    esac
}

# in_builder ARCH CARGO-ARGUMENT…: in a folder with the name of this one, which cargo writes into the tests.
in_builder() {
    local log=$work/$1.log
    # shellcheck disable=SC2016 # the inner shell fills them in
    in_debian "$work/builder" sh -euc 'mkdir -p "$0"; mount --bind /nodefwd "$0"; cd "$0"; exec "$@"' "$PWD" \
        env CARGO_TARGET_DIR="$work/$1" CARGO_PROFILE_DEV_DEBUG=0 NODEFWD_COMMIT="$commit" \
        deploy/cross.sh "$@" >"$log" 2>&1 || die "'cargo ${*:2}' for $1 failed: $(tail -n 30 "$log")"
}

# release ARCH TARGET FILE: built as for the image, or taken from there. For i386 there is no image, and all tests run.
release() {
    local platform features=(--no-default-features --features static)
    [[ $1 != i386 ]] || features=()
    if [[ $archive ]]; then
        case $1 in
            armhf) platform=arm-v7 ;;
            ppc64el) platform=ppc64le ;;
            i386) platform=386 ;;
            *) platform=$1 ;;
        esac
        cp "$work/image/$platform/usr/bin/nodefwd" "$3" || die "$archive holds no image for $1"
        [[ ! $commit ]] || grep -aqF "commit ${commit:0:12}," "$3" || die "the program in $archive is not of commit ${commit:0:12}"
        return 0
    fi
    step "$1: building the release"
    # The scripts of `nodefwd completions` are files beside the program elsewhere.
    in_builder "$1" build --release --locked "${features[@]}"
    cp "$work/$1/$2/release/nodefwd" "$3"
}

# build ARCH: the release as $work/ARCH/tests/nodefwd, and the tests beside it.
build() {
    local arch=$1 properties target kind machine header program
    properties=$(properties_of "$arch")
    read -r target kind machine <<<"$properties"
    mkdir -p "$work/$arch/tests"
    cp tests/architectures/packets.sh tests/network.sh "$work/$arch/tests/"
    release "$arch" "$target" "$work/$arch/tests/nodefwd"
    header=$(readelf --wide --file-header --dynamic --program-headers "$work/$arch/tests/nodefwd")
    [[ ! $header =~ NEEDED|INTERP ]] || die "$arch: not static: $(grep -E 'NEEDED|INTERP' <<<"$header")"
    [[ $header == *Type:*"$kind ("*Machine:*"$machine"* ]] || die "$arch: not of type $kind for $machine: $header"
    size=$(stat -c %s "$work/$arch/tests/nodefwd")
    ((size <= 2 * 1024 * 1024)) || die "$arch: the program takes $size bytes; 2 MiB are allowed"
    [[ $depth != build && $depth != packets ]] || return 0

    step "$arch: building the tests"
    in_builder "$arch" test --no-run --locked --lib --test netns
    while read -r program; do
        case $program in
            */netns-*) cp "$program" "$work/$arch/tests/netns" ;;
            *) cp "$program" "$work/$arch/tests/unit" ;;
        esac
    done < <(sed -n 's/.*Executable .*(\(.*\))/\1/p' "$work/$arch.log")
}

# --- Testing ------------------------------------------------------------------------------------------

# judge ARCH: every set of tests must have passed, and have run at least one. Sets tested, in words.
judge() {
    local file=$work/$1.tests sets unit all
    sets=$(list_tests "$1" | wc -l)
    tested='failed'
    [[ $(grep -c '^ended: 1 ' "$file") == "$sets" && ! $(<"$file") == *'ok. 0 passed'* ]] || return 1
    read -r unit all < <(awk '/^test result: ok/ { unit = unit ? unit : $4; all += $4 } END { print unit + 0, all + 0 }' "$file")
    tested="$unit unit tests, $((all - unit)) end to end, on $(sed -n 's/^booted: \(Linux [0-9.]*\).*/\1/p' "$file")"
    case $depth in
        packets) tested="\`--packets\`, on ${tested#* on }" ;;
        brief) [[ $1 == i386 ]] || tested="\`--brief\`: $tested" ;;
    esac
}

# write_down ARCH: its line in the table of tests/README.md. What was tested before and is not tested again by --build
# or --packets stays there, with the commit that it was tested at.
write_down() {
    local line commit_before before earlier='' at='no'
    [[ $(properties_of "$1") != *' DYN '* ]] || at='yes'
    IFS='|' read -r _ _ _ _ before _ commit_before _ < <(grep "^| $1 | " tests/README.md)
    before=${before# } before=${before% }
    case $before in
        'built only') ;;
        'of '*) earlier=$before ;;
        \`--packets\`*) [[ $depth == packets ]] || earlier="of ${commit_before// /}, $before" ;;
        *) earlier="of ${commit_before// /}, $before" ;;
    esac
    [[ $depth != packets || $before != \`--packets\`*'; of '* ]] || earlier="of ${before#*; of }"
    case $depth in
        build) tested=${earlier:-$tested} ;;
        packets) tested+=${earlier:+; $earlier} ;;
    esac
    line="| $1 | $(sed -E ':a; s/([0-9])([0-9]{3})(,|$)/\1,\2\3/; ta' <<<"$size") | $at | $tested | $(date -u +%F) | ${commit:0:7} |"
    sed -i "s#^| $1 | .*#$line#" tests/README.md
}

if [[ $archive ]]; then
    rm -rf "$work/image"
    /usr/bin/python3 tests/image/entries.py "$archive" "$work/image" >/dev/null
fi
if [[ ! -e $work/builder/built && ! ($archive && $depth =~ ^(build|packets)$) ]]; then
    step "making a Debian 13 to build in"
    rm -rf --one-file-system "$work/builder"
    mkdir -p "$work"
    make_debian "$work/builder"
    touch "$work/builder/built"
fi
table=() failed=()
for arch in "${architectures[@]}"; do
    began=$SECONDS tested='built only'
    build "$arch"
    if [[ $depth != build ]]; then
        step "$arch: testing"
        if [[ $arch == i386 ]]; then run_here i386; else boot "$arch"; fi >"$work/$arch.tests" 2>&1
        judge "$arch" || { failed+=("$arch") && tail -n 200 "$work/$arch.tests" >&2; }
    fi
    table+=("$arch: $size bytes, $tested, in $((SECONDS - began)) s")
    step "${table[-1]}"
    [[ $record == false || $tested == failed ]] || write_down "$arch"
done
printf '\n%s, commit %s\n' "$(date -u +%F)" "${commit:0:12}"
printf '%s\n' "${table[@]}"
[[ ${#failed[@]} -eq 0 ]] || die "not all tests passed for ${failed[*]}"
