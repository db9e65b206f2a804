#!/bin/sh
# install.sh TREE DEST: copies this image's tree to the node as DEST/<version>, whole or not at all, and writes the version to the
# file DEST/current. What is there already is left alone: processes run from it. Runs under a static busybox.
set -eu
tree=$1
dest=$2
version=$(cat "$tree/VERSION")
mkdir -p "$dest"
# Left by an installer that was killed half way; there is one installer per node and tree.
rm -rf "$dest"/.new.*
if [ ! -d "$dest/$version" ]; then
  cp -a "$tree" "$dest/.new.$version"
  sync -f "$dest/.new.$version" || sync
  mv -T "$dest/.new.$version" "$dest/$version"
  echo "installed $dest/$version"
else
  echo "$dest/$version is there already"
fi
echo "$version" >"$dest/.new.current"
mv -T "$dest/.new.current" "$dest/current"
