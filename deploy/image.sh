#!/usr/bin/env bash
# usage: deploy/image.sh [PLATFORM…] [-- ARGUMENT…]
# Builds the image for several architectures without emulation, and writes them as one OCI index into
# target/nodefwd.tar, which k3s imports on a node of any of them. The arguments after -- go to `podman build`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

platforms=()
while [[ $# -gt 0 && $1 != -- ]]; do
    platforms+=("${1#linux/}")
    shift
done
[[ $# -eq 0 ]] || shift
[[ ${#platforms[@]} -gt 0 ]] || platforms=(amd64 arm64 arm/v7 riscv64)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
name=localhost/nodefwd:$version
commit=$(git -c safe.directory='*' rev-parse HEAD 2>/dev/null) || commit=''
builder=$(podman info --format '{{.Version.OsArch}}')

# An earlier index, or an image of one architecture.
podman manifest exists "$name" && podman manifest rm "$name" >/dev/null
podman image exists "$name" && podman untag "$name"
podman manifest create "$name" >/dev/null
for platform in "${platforms[@]}"; do
    echo "${0##*/}: building for $platform" >&2
    # podman before 5 does not fill in BUILDPLATFORM. With a time of its own, no two images would be the same.
    podman build --platform "linux/$platform" --manifest "$name" --timestamp 0 \
        --build-arg BUILDPLATFORM="$builder" --build-arg NODEFWD_COMMIT="$commit" "$@" .
done
mkdir -p target
rm -f target/nodefwd.tar
podman manifest push --all "$name" "oci-archive:target/nodefwd.tar:$name"
