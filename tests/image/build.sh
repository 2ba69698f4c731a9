#!/usr/bin/env bash
# Builds the image with a podman of its own, for scripts that have sourced setup.sh and debian.sh and set files (a folder).
set -euo pipefail

# shellcheck disable=SC2034 # for the scripts that source this
podman_packages=(podman runc debootstrap)

# quietly COMMAND…: shows its output only if it fails.
quietly() {
    "$@" >"$files/said" 2>&1 </dev/null || die "'$*' failed: $(tail -n 30 "$files/said")"
}

# All of podman's state is in a folder of this test, so that it neither sees nor changes any other.
# Its default limits are higher than a container without the privilege to raise limits may have.
own_podman() {
    cat >"$files/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
tmp_dir = "$files/podman"
CONF
    cat >"$files/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$files/storage"
runroot = "$files/run"
CONF
    export CONTAINERS_CONF=$files/containers.conf CONTAINERS_STORAGE_CONF=$files/storage.conf
}

end_podman() {
    podman rm --all --force --time 0 >/dev/null 2>&1 || true
    # Lazily: podman may still be tidying up.
    findmnt -rno TARGET | grep "^$files/" | sort -r | xargs -r umount --lazy || true
}

# build_images PLATFORM…: with deploy/image.sh, on a Debian 13 made of packages.
build_images() {
    make_debian "$files/base"
    tar -C "$files/base" -cf "$files/base.tar" .
    quietly podman import "$files/base.tar" localhost/debian
    rm -rf --one-file-system "$files/base" "$files/base.tar"
    quietly deploy/image.sh "$@" -- \
        --network=host --isolation=chroot --pull=never --layers=false --build-arg BASE=localhost/debian
}
