#!/bin/sh
# host.sh TREE HOME DISKS: becomes libvirtd on the node, in a root directory of its own that ends with it: TREE's programs, HOME's
# etc and var, DISKS as /disks. Everything that it starts lives in there too.
set -eu
if [ "${LIBVIRT_NAMESPACE:-}" != 1 ]; then LIBVIRT_NAMESPACE=1 exec unshare --mount --propagation slave -- sh "$0" "$@"; fi
tree=$1 home=$2 disks=$3
mount -t tmpfs libvirt /mnt
mkdir -p /mnt/usr /mnt/dev /mnt/proc /mnt/sys /mnt/disks /mnt/tmp /mnt/run /mnt/etc /mnt/var
for link in bin sbin lib lib64; do ln -s "usr/$link" "/mnt/$link"; done
mount --bind "$tree/usr" /mnt/usr
mount --rbind /dev /mnt/dev
mount -t proc proc /mnt/proc
mount -t sysfs -o ro sysfs /mnt/sys
mount --bind "$home/etc" /mnt/etc
mount --bind "$home/var" /mnt/var
mount --bind "$disks" /mnt/disks
exec chroot /mnt /usr/sbin/libvirtd --listen </dev/null >>"$home/log" 2>&1
