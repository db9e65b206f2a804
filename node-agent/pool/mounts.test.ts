import { describe, expect, it } from "vitest";
import { parseMountInfo } from "./mounts.ts";

const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
43 22 0:39 / /var/lib/drover/pools/local rw,nosuid,nodev shared:7 master:2 - btrfs /dev/loop0 ro,space_cache=v2,subvol=/
44 22 254:0 /srv/my\\040disks /var/lib/drover/pools/plain rw - ext4 /dev/vda rw
`;

describe("mountinfo", () => {
  it("reads mount point, root, type and source, with and without optional fields", () => {
    expect(parseMountInfo(text)).toEqual([
      { mountPoint: "/", root: "/", fsType: "ext4", source: "/dev/vda", readOnly: false },
      { mountPoint: "/var/lib/drover/pools/local", root: "/", fsType: "btrfs", source: "/dev/loop0", readOnly: true },
      { mountPoint: "/var/lib/drover/pools/plain", root: "/srv/my disks", fsType: "ext4", source: "/dev/vda", readOnly: false },
    ]);
  });

  it("skips what is not a mount", () => {
    expect(parseMountInfo("\nnonsense\n")).toEqual([]);
  });
});
