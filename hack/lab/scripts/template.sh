#!/bin/sh
# template.sh DISK ARCHIVE...: imports image archives into the containerd root on a btrfs disk image (subvolume "template").
# Runs in mount and pid namespaces of its own: killed at any point, nothing of it is left.
set -eu
disk=$1
shift
mount -t proc proc /proc
mount -t tmpfs run /run
mkdir /run/disk
mount -o loop,noatime "$disk" /run/disk
[ -d /run/disk/template ] || btrfs subvolume create /run/disk/template >/dev/null
cat >/run/containerd.toml <<'T'
version = 2
root = "/run/disk/template"
state = "/run/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "/run/containerd.sock"
T
containerd --config /run/containerd.toml --log-level warn &
daemon=$!
tries=0
until ctr --address /run/containerd.sock --connect-timeout 1s version >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ "$tries" -lt 200 ] || { echo "containerd did not answer" >&2; exit 1; }
  sleep 0.05
done
import() { ctr --address /run/containerd.sock -n k8s.io images import "$1" >/dev/null; }
imports=
for archive in "$@"; do
  import "$archive" 2>/dev/null &
  imports="$imports $!"
done
again=
for one in $imports; do wait "$one" || again=1; done
# Two imports that share a layer can get into each other's way ("parent snapshot does not exist"); one after the other they cannot.
[ -z "$again" ] || for archive in "$@"; do import "$archive"; done
kill "$daemon"
wait "$daemon" || true
# Every node's containerd gives itself an identity.
rm -rf /run/disk/template/io.containerd.grpc.v1.introspection
umount /run/disk
