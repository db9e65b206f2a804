#!/bin/sh
# bare.sh RUNTIME DISK TAP ARGUMENTS...: QEMU alone on the node, with the machine of a guest of Drover's and nothing around it.
# Prints "start", then becomes QEMU, whose monitor is standard input and output. Mounts are in a namespace of its own and end
# with it; the tap is the caller's to delete.
set -eu
if [ "${BARE_NAMESPACE:-}" != 1 ]; then BARE_NAMESPACE=1 exec unshare --mount --propagation private -- sh "$0" "$@"; fi
runtime=$1 disk=$2 tap=$3
shift 3
ip link show "$tap" >/dev/null 2>&1 || ip tuntap add dev "$tap" mode tap
mount -t tmpfs bare /mnt
mkdir -p /mnt/usr /mnt/dev /mnt/proc /mnt/disk /mnt/tmp
for link in bin lib lib64; do ln -s "usr/$link" "/mnt/$link"; done
mount --bind "$runtime/usr" /mnt/usr
mount --bind /dev /mnt/dev
mount -t proc proc /mnt/proc
touch /mnt/disk/root.raw
mount --bind "$disk" /mnt/disk/root.raw
echo start
exec chroot /mnt /usr/bin/qemu-system-x86_64 "$@"
