#!/bin/sh
# qemu.sh RUNTIME DISK HOME LOG ARGUMENTS...: becomes QEMU on the node with nothing of Drover's around it, in a mount namespace that
# ends with it. HOME is /hand inside (monitor, key, console), DISK is /disk/root.raw. What it says goes to HOME/LOG.
set -eu
if [ "${HAND_NAMESPACE:-}" != 1 ]; then HAND_NAMESPACE=1 exec unshare --mount --propagation slave -- sh "$0" "$@"; fi
runtime=$1 disk=$2 home=$3 log=$4
shift 4
mount -t tmpfs hand /mnt
mkdir -p /mnt/usr /mnt/dev /mnt/proc /mnt/disk /mnt/tmp /mnt/hand
for link in bin lib lib64; do ln -s "usr/$link" "/mnt/$link"; done
mount --bind "$runtime/usr" /mnt/usr
mount --bind /dev /mnt/dev
mount -t proc proc /mnt/proc
mount --bind "$home" /mnt/hand
touch /mnt/disk/root.raw
mount --bind "$disk" /mnt/disk/root.raw
exec chroot /mnt /usr/bin/qemu-system-x86_64 "$@" </dev/null >>"$home/$log" 2>&1
