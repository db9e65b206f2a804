/** The command line of a guest of Drover's, turned into one that needs nothing of Drover's around it. Pure. */

export interface OwnPlaces {
  name: string;
  uuid: string;
  tap: string;
  mac: string;
}

/** Where the guest's QEMU sees its own things; see qemu.sh. */
export const INSIDE = { disk: "/disk/root.raw", home: "/hand" } as const;

const valueOf = (option: string, key: string): string | undefined =>
  option
    .split(",")
    .find((part) => part.startsWith(`${key}=`))
    ?.slice(key.length + 1);

const put = (option: string, key: string, value: string): string =>
  option
    .split(",")
    .map((part) => (part.startsWith(`${key}=`) ? `${key}=${value}` : part))
    .join(",");

/** Handed descriptors become a connection to who listens (the monitor), a file (the console) or nothing. */
const chardev = (option: string, monitor: string): string => {
  const id = valueOf(option, "id") ?? "";
  if (id === "qmp") return `socket,id=${id},path=${monitor},server=off`;
  return option.startsWith("file,") ? `file,id=${id},path=${INSIDE.home}/console.log` : `null,id=${id}`;
};

/** Changes of an option's value, by the option's name; undefined: the option goes. */
const changes = (places: OwnPlaces, monitor: string): Record<string, (value: string) => string | undefined> => ({
  "-name": () => `guest=hand/${places.name},debug-threads=on`,
  "-uuid": () => places.uuid,
  "-add-fd": () => undefined,
  "-trace": () => undefined,
  "-chardev": (value) => chardev(value, monitor),
  "-netdev": (value) => put(value, "ifname", places.tap),
  "-blockdev": (value) => put(value, "filename", INSIDE.disk),
  "-device": (value) => put(value, "mac", places.mac),
});

/**
 * The same machine with its own disk, tap, address and monitor, which QEMU connects to by itself; it says when its CPUs run and stop.
 * @param argv of a running guest's QEMU, program first
 */
export const ownArguments = (argv: readonly string[], places: OwnPlaces, monitor: string): string[] => {
  const change = changes(places, monitor);
  const own: string[] = [];
  for (let at = 1; at < argv.length; at += 2) {
    const name = argv[at] ?? "";
    const value = argv[at + 1];
    if (value === undefined || value.startsWith("-")) {
      own.push(name);
      at -= 1;
      continue;
    }
    const changed = name in change ? change[name]?.(value) : value;
    if (changed !== undefined) own.push(name, changed);
  }
  return [...own, "-trace", "vm_state_notify"];
};
