#!/bin/sh
# weighed.sh GROUP WEIGHT COMMAND...: becomes COMMAND in a cgroup of the node, made if need be, of that weight for the processors.
set -eu
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  place=/sys/fs/cgroup/$1 file=cpu.weight
else
  place=/sys/fs/cgroup/cpu/$1 file=cpu.shares
fi
mkdir -p "$place"
echo "$2" >"$place/$file"
echo $$ >"$place/cgroup.procs"
shift 2
exec "$@"
