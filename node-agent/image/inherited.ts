/** Files that QEMU's programs inherit open, as they are named to them: their directories stay closed to those. Pure. */

/** First descriptor that a program inherits besides the usual three. */
const FIRST_FILE = 3;

export const inherited = (index: number): string => `/proc/self/fd/${FIRST_FILE + index}`;

/**
 * As an image for qemu-img. Without locks: to learn whether it may lock, QEMU opens /dev/null, which is not there, and says so in front of
 * what it really has to say; nobody else has these files open for writing.
 */
export const inheritedImage = (format: "raw" | "qcow2", index: number): string =>
  `driver=${format},file.driver=file,file.filename=${inherited(index)},file.locking=off`;
