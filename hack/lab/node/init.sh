#!/bin/sh
# PID 1 of a lab node, in new mount, pid, uts, ipc and cgroup namespaces and the node's network namespace.
# Makes of the machine's own file tree one that is the node's, then becomes pause, which tells its pid on file descriptor 3.
# Reads LAB_STATE LAB_CACHE LAB_CHECKOUT NODE_NAME NODE_STATE NODE_CONTAINERD NODE_MACHINE_ID PAUSE.
set -eu

# This /proc is still the machine's: the pid read here is the one by which the machine knows this process.
read -r pid rest </proc/self/stat

mount --make-rprivate /

# Keep the real directories at hand: /run, /etc and /var are about to be covered.
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /run/netns
keep() { # keep NAME DIRECTORY
  mkdir -p "/run/keep/$1"
  mount --bind "$2" "/run/keep/$1"
}
for name in kubelet drover pods; do keep "$name" "$NODE_STATE/$name"; done
keep containerd "$NODE_CONTAINERD"
keep state "$LAB_STATE"
keep cache "$LAB_CACHE"
keep checkout "$LAB_CHECKOUT"

# A copy of a mount keeps its loop device or namespace busy for as long as this node lives: drop those that are not ours.
awk -v state="$LAB_STATE/" '{
  for (i = 7; $i != "-"; i++);
  ours = $5 ~ "^/run/keep/"
  if (!ours && (index($5, state) == 1 || $(i + 1) == "nsfs" || $(i + 2) ~ "^/dev/loop")) print $5
}' /proc/self/mountinfo | sort -r | while read -r path; do umount -l "$(printf '%b' "$path")"; done

hierarchies=
for group in /sys/fs/cgroup/*/; do
  [ -e "$group/cgroup.procs" ] && [ ! -e /sys/fs/cgroup/cgroup.controllers ] && hierarchies="$hierarchies $(basename "$group")"
done
unified=
[ -e /sys/fs/cgroup/cgroup.controllers ] && unified=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
if [ -n "$unified" ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  for name in $hierarchies; do
    mkdir "/sys/fs/cgroup/$name"
    case $name in
    unified) mount -t cgroup2 cgroup2 "/sys/fs/cgroup/$name" ;;
    systemd) mount -t cgroup -o none,name=systemd cgroup "/sys/fs/cgroup/$name" ;;
    *) mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" ;;
    esac
  done
fi

for name in etc var srv; do
  over=/run/keep/state/nodes/$NODE_NAME/overlay/$name
  mkdir -p "$over/upper" "$over/work"
  mount -t overlay -o "lowerdir=/$name,upperdir=$over/upper,workdir=$over/work" overlay "/$name"
done

put() { # put NAME DIRECTORY
  mkdir -p "$2"
  mount --move "/run/keep/$1" "$2"
}
put cache "$LAB_CACHE"
put checkout "$LAB_CHECKOUT"
put state "$LAB_STATE"
put containerd /var/lib/containerd
put kubelet /var/lib/kubelet
put drover /var/lib/drover
put pods /var/log/pods

# One directory that all nodes have, as a network file system would be.
mkdir -p "$LAB_STATE/shared" /srv/shared
mount --bind "$LAB_STATE/shared" /srv/shared

# The kubelet writes these, and they belong to the whole machine: it gets files to write instead.
mkdir -p /run/sysctl
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  file=/run/sysctl/$(echo "$name" | tr / .)
  cat "/proc/sys/$name" >"$file"
  mount --bind "$file" "/proc/sys/$name"
done

mount --make-rshared /
hostname "$NODE_NAME"
echo "$NODE_NAME" >/etc/hostname
echo "$NODE_MACHINE_ID" >/etc/machine-id
# These belong to the network namespace: the node's own.
echo 1 >/proc/sys/net/ipv4/ip_forward
cd /

exec "$PAUSE" "$pid"
