#!/usr/bin/env bash
# Builds nodefwd as others do: in another folder and with another cargo home, which must give the same bytes, also of
# the bill of materials; as the crate that would be published; and with the system's shared libraries.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The folder has no repository, so the commit is given, and its time.
NODEFWD_COMMIT=$(git -c safe.directory='*' rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git -c safe.directory='*' log -1 --format=%ct)
export NODEFWD_COMMIT SOURCE_DATE_EPOCH
mkdir "$elsewhere/another folder"
git -c safe.directory='*' ls-files -z | tar -c --null -T - | tar -x -C "$elsewhere/another folder"
cargo build --release --locked
(cd "$elsewhere/another folder" && CARGO_HOME=$elsewhere/cargo CARGO_TARGET_DIR=$elsewhere/target cargo build --release --locked)
cmp "$release_binary" "$elsewhere/target/$CARGO_BUILD_TARGET/release/nodefwd" ||
    die "the program depends on the folder that it is built in, or on cargo's"
! grep -aq "$HOME/.cargo\|$PWD" "$release_binary" || die "there are names of this machine's folders in the program"

CARGO_INSTALL_ROOT=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
export CARGO_INSTALL_ROOT
deploy/sbom.sh "$elsewhere/here.json"
(cd "$elsewhere/another folder" && CARGO_HOME=$elsewhere/cargo deploy/sbom.sh "$elsewhere/there.json")
cmp "$elsewhere/here.json" "$elsewhere/there.json" || die "the bill of materials depends on the folder that it is made in"
! grep -q "$HOME\|$PWD" "$elsewhere/here.json" || die "there are names of this machine's folders in the bill of materials"
named=$(python3 -c 'import json, sys; print(*(part["name"] for part in json.load(sys.stdin)["components"]), sep="\n")' <"$elsewhere/here.json")
linked=$(cargo tree --locked --edges normal --prefix none --no-dedupe --target "$CARGO_BUILD_TARGET" | sed -n '2,$s/ .*//p')
[[ $(sort -u <<<"$named") == "$(sort -u <<<"$linked"$'\nglibc\nlibmnl\nlibnftnl')" ]] ||
    die "the bill of materials names others than are linked: $named"
unset CARGO_INSTALL_ROOT

cargo package --locked --allow-dirty --quiet
cargo install --debug --locked --path . --root "$elsewhere" --no-default-features --features completions,names --quiet
needed=$(readelf --dynamic "$elsewhere/bin/nodefwd" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')
for library in libmnl libnftnl libc; do
    [[ $needed == *$library.so* ]] || die "without the feature 'static', it should use the shared $library: $needed"
done
rules=$("$elsewhere/bin/nodefwd" render tcp/80=10.0.0.5)
[[ $rules == 'table inet nodefwd-tcp-80 {'* ]] || die "with shared libraries it prints: $rules"
echo "the same $(stat -c %s "$release_binary") bytes in another folder; $(wc -l <<<"$named") parts listed; packaged; installed with shared libraries"
