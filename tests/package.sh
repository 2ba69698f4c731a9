#!/usr/bin/env bash
# Builds nodefwd as others do: in another folder and with another cargo home, which must give the same bytes;
# as the crate that would be published; and with the system's shared libraries.
set -euo pipefail
# shellcheck source=tests/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The folder has no repository, so the commit is given.
NODEFWD_COMMIT=$(git -c safe.directory='*' rev-parse HEAD)
export NODEFWD_COMMIT
mkdir "$elsewhere/another folder"
git -c safe.directory='*' ls-files -z | tar -c --null -T - | tar -x -C "$elsewhere/another folder"
cargo build --release --locked
(cd "$elsewhere/another folder" && CARGO_HOME=$elsewhere/cargo CARGO_TARGET_DIR=$elsewhere/target cargo build --release --locked)
cmp "$release_binary" "$elsewhere/target/$CARGO_BUILD_TARGET/release/nodefwd" ||
    die "the program depends on the folder that it is built in, or on cargo's"
! grep -aq "$HOME/.cargo\|$PWD" "$release_binary" || die "there are names of this machine's folders in the program"

cargo package --locked --allow-dirty --quiet
cargo install --debug --locked --path . --root "$elsewhere" --no-default-features --features completions --quiet
needed=$(readelf --dynamic "$elsewhere/bin/nodefwd" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')
for library in libmnl libnftnl libc; do
    [[ $needed == *$library.so* ]] || die "without the feature 'static', it should use the shared $library: $needed"
done
rules=$("$elsewhere/bin/nodefwd" render tcp/80=10.0.0.5)
[[ $rules == 'table inet nodefwd-tcp-80 {'* ]] || die "with shared libraries it prints: $rules"
echo "the same $(stat -c %s "$release_binary") bytes in another folder; packaged; installed with shared libraries"
