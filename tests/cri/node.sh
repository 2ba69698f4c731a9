#!/usr/bin/env bash
# usage: node.sh ROOT FILES
# The first process of a node, in a mount, process and network namespace of its own: changes to the Debian in ROOT, which
# stays as it is, and runs containerd there. What the kubelet would write is in folders of FILES, which the test sees too.
set -euo pipefail
root=$1 files=$2

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
for folder in run tmp etc/cni etc/containerd var/log var/lib/cni var/lib/containerd var/lib/kubelet var/lib/rancher; do
    mkdir -p "$root/$folder"
    mount -t tmpfs tmpfs "$root/$folder"
done
mkdir -p "$root"/var/log/pods "$root"/var/lib/kubelet/pods "$root"/var/lib/rancher/k3s/agent/images "$root"/etc/cni/net.d
mount --bind "$files/pods" "$root/var/lib/kubelet/pods"
mount --bind "$files/logs" "$root/var/log/pods"
mount --bind "$files/images" "$root/var/lib/rancher/k3s/agent/images"
cp "$files/config.toml" "$root/etc/containerd/config.toml"
cp "$files/10-flannel.conflist" "$root/etc/cni/net.d/"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . mnt
umount --lazy /mnt
cd /

# As k3s starts it. This shell stays, for the processes whose parents end.
PATH=/usr/sbin:/usr/bin containerd -c /etc/containerd/config.toml -a /run/containerd/containerd.sock \
    --state /run/containerd --root /var/lib/containerd &
wait $!
