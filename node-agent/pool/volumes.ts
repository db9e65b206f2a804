/** Disks of instances: raw files that are whole or not there at all. */
import { constants } from "node:fs";
import { chmod, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { GIB, gibRoundedUp } from "../../crds/quantity.ts";
import { errorCode, UserError } from "../errors.ts";
import { cloneFile, removeEmptyDirectory, syncDirectory } from "./files.ts";
import { formatSize, wholeSectors } from "./size.ts";

export interface VolumeRequest {
  pool: string;
  instanceUid: string;
  /** Name of the disk within the instance, such as `root`. */
  disk: string;
  sizeBytes: number;
  /** The image in the same pool that a new disk starts from; without it a new disk is empty. */
  from?: { imagePath: string; virtualSize: number };
  /** The guest's identity on the node, to which the file belongs. */
  uid: number;
  gid: number;
  /** It is there already, made by another node; a pool without it is the wrong one. */
  mustExist?: boolean;
}

export interface Volume {
  path: string;
  sizeBytes: number;
}

/** Others may go through it by name and not list it; only root makes files in it, so that a guest cannot fill the pool. */
const VOLUME_DIRECTORY_MODE = 0o711;

/** Copying without reflink is the slow case: a deadline for the slowest disk that is worth using. */
const SLOWEST_BYTES_PER_MS = 10_000;

/** Throws unless a name is one that the API server or Drover makes: it becomes a part of a path. */
export function checkPathPart(name: string): void {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9-]{0,63}$/.test(name)) throw new Error(`'${name}' cannot be a part of a path`);
}

/** The disk as it is; undefined when there is none. */
async function existing(path: string): Promise<number | undefined> {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      return (await handle.stat()).size;
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Makes an instance's disk, or finds it: never starts anew one that exists, never makes one smaller. Grows it to the size,
 * gives it to the guest. Throws UserError ImageTooLarge when the image does not fit.
 */
export async function makeVolume(volumes: string, request: VolumeRequest, signal?: AbortSignal): Promise<Volume> {
  checkPathPart(request.instanceUid);
  checkPathPart(request.disk);
  const directory = join(volumes, request.instanceUid);
  const path = join(directory, `${request.disk}.raw`);
  const wanted = wholeSectors(request.sizeBytes);
  if ((await existing(path)) === undefined) await create(directory, path, wanted, request, signal);
  const sizeBytes = await own(path, wanted, request);
  return { path, sizeBytes };
}

async function create(
  directory: string,
  path: string,
  wanted: number,
  request: VolumeRequest,
  signal?: AbortSignal,
): Promise<void> {
  const { from } = request;
  if (from && from.virtualSize > wanted) {
    const message = `the image is a disk of ${formatSize(from.virtualSize)} and does not fit in the ${request.disk} disk of ${formatSize(wanted)}`;
    throw new UserError(
      "ImageTooLarge",
      `${message}; make a new instance with a ${request.disk}Disk.size of at least ${sizeToAsk(from.virtualSize)}`,
    );
  }
  await mkdir(directory, { recursive: true, mode: VOLUME_DIRECTORY_MODE });
  await chmod(directory, VOLUME_DIRECTORY_MODE);
  const temporary = `${path}.new`;
  await rm(temporary, { force: true });
  try {
    if (from) {
      const { size } = await stat(from.imagePath);
      await cloneFile(from.imagePath, temporary, { deadlineMs: 60_000 + Math.ceil(size / SLOWEST_BYTES_PER_MS), signal });
    } else {
      await (await open(temporary, "wx", 0o600)).close();
    }
    await own(temporary, wanted, request);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(directory);
  await syncDirectory(join(directory, ".."));
}

/** Grows a disk to its size, gives it to its guest, and makes both last; writes nothing where nothing differs. */
async function own(path: string, wanted: number, request: VolumeRequest): Promise<number> {
  const handle = await open(path, constants.O_RDWR | constants.O_NOFOLLOW);
  try {
    const seen = await handle.stat();
    let changed = false;
    if (seen.size < wanted) {
      await handle.truncate(wanted);
      changed = true;
    }
    if (seen.uid !== request.uid || seen.gid !== request.gid) {
      await handle.chown(request.uid, request.gid);
      changed = true;
    }
    if ((seen.mode & 0o777) !== 0o600) {
      await handle.chmod(0o600);
      changed = true;
    }
    if (changed || path.endsWith(".new")) await handle.sync();
    return Math.max(seen.size, wanted);
  } finally {
    await handle.close();
  }
}

/** A quantity that is at least so large, in whole MiB. */
const sizeToAsk = (bytes: number): string => formatSize(Math.ceil(bytes / 1024 ** 2) * 1024 ** 2);

/** Instances that have disks here. */
export async function instancesWithVolumes(volumes: string): Promise<string[]> {
  try {
    return await readdir(volumes);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}

/** Sizes of all disks, summed up by instance; what comes or goes meanwhile may be in it or not. */
export async function volumeBytes(volumes: string): Promise<Map<string, number>> {
  const sums = new Map<string, number>();
  for (const instanceUid of await instancesWithVolumes(volumes)) {
    try {
      const names = await readdir(join(volumes, instanceUid));
      const files = await Promise.all(names.map((name) => stat(join(volumes, instanceUid, name))));
      // Each takes whole GiB, as in the claims.
      sums.set(
        instanceUid,
        files.reduce((sum, { size }) => sum + gibRoundedUp(size) * GIB, 0),
      );
    } catch (error) {
      if (errorCode(error) !== "ENOENT" && errorCode(error) !== "ENOTDIR") throw error;
    }
  }
  return sums;
}

/** Removes all disks of an instance; true when there were any. */
export async function deleteVolumes(volumes: string, instanceUid: string): Promise<boolean> {
  checkPathPart(instanceUid);
  if (!(await instancesWithVolumes(volumes)).includes(instanceUid)) return false;
  await rm(join(volumes, instanceUid), { recursive: true, force: true });
  await syncDirectory(volumes);
  return true;
}

/** Removes one disk of an instance, and its directory with the last one; one that is not there is no error. */
export async function deleteVolume(volumes: string, instanceUid: string, disk: string): Promise<void> {
  checkPathPart(instanceUid);
  checkPathPart(disk);
  const directory = join(volumes, instanceUid);
  for (const name of [`${disk}.raw`, `${disk}.raw.new`]) await rm(join(directory, name), { force: true });
  await removeEmptyDirectory(directory);
  await syncDirectory(volumes);
}
