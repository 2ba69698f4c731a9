#!/usr/bin/env bash
# Builds nodefwd, checks that the release is one small static file, and runs all tests. As root:
# they make network namespaces. Arguments go to `cargo test`.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $EUID -eq 0 ]] || die "the tests make network namespaces: run me as root"
bring_promtool
for suite in bullseye bookworm trixie; do
    bring_nft "$suite"
done

cargo build --release --locked
headers=$(readelf --wide --dynamic --program-headers "$release_binary")
[[ ! $headers =~ NEEDED|INTERP ]] || die "$release_binary is not static: $(grep -E 'NEEDED|INTERP' <<<"$headers")"
size=$(stat -c %s "$release_binary")
((size <= 2 * 1024 * 1024)) || die "$release_binary takes $size bytes; 2 MiB are allowed"

# Most of the tests wait most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((3 * $(nproc)))}
# The tests themselves are built with the dev profile, since the release's fat LTO takes much longer;
# the program that they run in network namespaces is the release.
# The tests send signals that nohup(1), or a shell in the background, has its children ignore.
NODEFWD_BIN=$release_binary env --default-signal=HUP,INT,QUIT cargo test --locked "$@"
