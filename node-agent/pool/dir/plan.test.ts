import { describe, expect, it } from "vitest";
import { describeStep } from "../steps.ts";
import { forbiddenPath, planDirectory, planDirectoryRemoval, type DirSeen } from "./plan.ts";

const want = { name: "plain", node: "n1", shared: false, path: "/srv/vms", root: "/var/lib/drover" };
const mark = { pool: "plain", node: "n1", id: "7" };
const directory = { path: "/srv/vms", isDirectory: true, mark: null, foreignEntries: [] };
const empty: DirSeen = { directory, note: null, bind: null, directories: false, joined: false };
const bind = { same: true, visible: true, readOnly: false };
const healthy: DirSeen = { directory: { ...directory, mark }, note: { id: "7" }, bind, directories: true, joined: false };

describe("planDirectory", () => {
  it.each([
    ["as it should be", healthy, []],
    ["an empty directory", empty, ["bind", "mark", "note", "make-directories"]],
    ["bound, then killed", { ...empty, bind }, ["mark", "note", "make-directories"]],
    ["marked, then killed", { ...empty, bind, directory: { ...directory, mark } }, ["note", "make-directories"]],
    ["after a reboot", { ...healthy, bind: null }, ["bind"]],
    [
      "missing",
      { ...empty, directory: null },
      ["refuse: /srv/vms does not exist on node n1; make the directory, or mount its disk"],
    ],
    [
      "gone",
      { ...healthy, directory: null },
      ["refuse: /srv/vms, the directory of pool plain, is gone; put it back, or mount its disk"],
    ],
    [
      "its disk not mounted: the directory below it is another one",
      { ...healthy, bind: null, directory },
      ["refuse: /srv/vms is not the directory that pool plain had so far; mount its disk, or put the directory back"],
    ],
    ["a file", { ...empty, directory: { ...directory, isDirectory: false } }, ["refuse: /srv/vms on node n1 is not a directory"]],
    [
      "a link to a forbidden place",
      { ...empty, directory: { ...directory, path: "/etc/ssl" } },
      [
        "refuse: /srv/vms (which is /etc/ssl) cannot be a pool: it lies in /etc, which belongs to the node's system; give a directory of its own",
      ],
    ],
    [
      "another pool's",
      { ...empty, directory: { ...directory, mark: { ...mark, pool: "other" } } },
      ["refuse: /srv/vms belongs to pool other; give pool plain a directory of its own"],
    ],
    [
      "another node's",
      { ...empty, directory: { ...directory, mark: { ...mark, node: "n2" } } },
      [
        "refuse: /srv/vms belongs to pool plain of node n2; a directory that nodes share needs shared: true, and must be empty when its pool is made",
      ],
    ],
    [
      "holds what is not ours",
      { ...empty, directory: { ...directory, foreignEntries: ["images", "volumes"] } },
      ["refuse: /srv/vms holds images and volumes that are not Drover's; give an empty directory"],
    ],
    [
      "something else bound",
      { ...healthy, bind: { ...bind, same: false } },
      ["refuse: something else is mounted where pool plain belongs; unmount it"],
    ],
    [
      "not seen in the pod",
      { ...healthy, bind: { ...bind, visible: false } },
      [
        "refuse: pool plain is mounted on the node but not seen in the agent's pod; its volume for Drover's directory must be mounted with mountPropagation: Bidirectional",
      ],
    ],
    [
      "read-only",
      { ...healthy, bind: { ...bind, readOnly: true } },
      ["refuse: the file system of /srv/vms is read-only; mount it for writing"],
    ],
  ] as [string, DirSeen, string[]][])("%s", (_, seen, steps) =>
    expect(planDirectory(seen, want).map(describeStep)).toEqual(steps),
  );
});

describe("planDirectory of a pool that nodes share", () => {
  const ours = { ...mark, node: "n2", shared: true };
  const shared: DirSeen = { ...healthy, directory: { ...directory, mark: ours }, joined: true };
  const notShared =
    "refuse: /srv/vms on node n1 is not the directory that the other nodes of pool plain have; mount the same file system on every node";
  it.each([
    ["as it should be, made by another node", shared, "7", []],
    ["the first node", empty, undefined, ["bind", "join", "mark", "note", "make-directories"]],
    [
      "another node has made it",
      { ...empty, directory: { ...directory, mark: ours } },
      "7",
      ["bind", "join", "note", "make-directories"],
    ],
    ["joined, then killed", { ...empty, bind, joined: true }, undefined, ["mark", "note", "make-directories"]],
    ["not mounted here: an empty directory below the mount point", empty, "7", [notShared]],
    ["another file system here", shared, "8", [notShared]],
    [
      "one node's own pool",
      { ...healthy, joined: false },
      undefined,
      [
        "refuse: /srv/vms belongs to pool plain of node n1; a directory that nodes share needs shared: true, and must be empty when its pool is made",
      ],
    ],
  ] as [string, DirSeen, string | undefined, string[]][])("%s", (_, seen, known, steps) =>
    expect(planDirectory(seen, { ...want, shared: true, directory: known }).map(describeStep)).toEqual(steps),
  );

  it("is not taken by one that is a node's own", () => {
    const steps = planDirectory(shared, want).map(describeStep);
    expect(steps).toEqual([
      "refuse: /srv/vms belongs to a pool plain that nodes share (shared: true); give this one a directory of its own",
    ]);
  });
});

describe("planDirectoryRemoval", () => {
  it.each([
    ["in use", healthy, ["delete", "unmount"]],
    ["not bound", { ...healthy, bind: null }, ["delete"]],
    ["nothing left", { ...empty }, []],
  ] as [string, DirSeen, string[]][])("%s", (_, seen, steps) =>
    expect(planDirectoryRemoval(seen).map(describeStep)).toEqual(steps),
  );
});

describe("forbiddenPath", () => {
  it.each([
    "/",
    "/etc",
    "/etc/ssl",
    "/proc/1",
    "/sys",
    "/dev/shm",
    "/boot",
    "/run/x",
    "/usr/local",
    "/var",
    "/var/lib",
    "/var/lib/kubelet",
    "/var/lib/kubelet/pods/x",
    "/var/lib/containerd",
    "/var/lib/drover",
    "/var/lib/drover/pools",
  ])("refuses %s", (path) => expect(forbiddenPath(path, "/var/lib/drover")).toBeTypeOf("string"));

  it.each(["/srv", "/srv/vms", "/mnt/disk1", "/home/vms", "/data", "/var/lib/vms", "/var/lib/drover2", "/etcetera"])(
    "takes %s",
    (path) => expect(forbiddenPath(path, "/var/lib/drover")).toBeUndefined(),
  );
});
