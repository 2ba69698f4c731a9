#!/bin/sh
# rustc as cargo calls it, with what .cargo/config.toml cannot say.
rustc=$1
shift

# Paths of dependencies are in the messages of their panics. Their packages' names instead make the same
# program whatever the folder is and wherever cargo keeps its crates.
if [ "${CARGO_MANIFEST_DIR:-}" ] && [ -z "${CARGO_PRIMARY_PACKAGE:-}" ]; then
    package=$CARGO_PKG_NAME-$CARGO_PKG_VERSION
    set -- "$@" --remap-path-prefix="$CARGO_MANIFEST_DIR=$package"
    [ -z "${OUT_DIR:-}" ] || set -- "$@" --remap-path-prefix="$OUT_DIR=$package/out"
fi

# Without the feature, the C library is shared too. rustc heeds the flag wherever it is, so it is taken out.
case "${CARGO_PKG_NAME:-} $*" in
    nodefwd\ *'feature="static"'*) ;;
    nodefwd\ *)
        for argument; do
            shift
            [ "$argument" != target-feature=+crt-static ] || argument=target-feature=-crt-static
            set -- "$@" "$argument"
        done
        ;;
esac

exec "$rustc" "$@"
