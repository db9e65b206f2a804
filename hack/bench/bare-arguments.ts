/** The command line of a guest of Drover's, turned into one that needs nothing of Drover. Pure. */

/** Value of `key=` in an option such as `socket,id=qmp,fd=3`. */
const valueOf = (option: string, key: string): string | undefined =>
  option
    .split(",")
    .find((part) => part.startsWith(`${key}=`))
    ?.slice(key.length + 1);

const bareChardev = (option: string): string => {
  const id = valueOf(option, "id") ?? "";
  if (id === "qmp") return `stdio,id=${id}`;
  return option.startsWith("file,") ? `file,id=${id},path=/tmp/console.log` : `null,id=${id}`;
};

/**
 * The same machine: handed descriptors become the standard streams or nothing, the disk is /disk/root.raw, the tap another.
 * @param argv of a running guest's QEMU, program first
 */
export const bareArguments = (argv: readonly string[], tap: string): string[] => {
  const bare: string[] = [];
  for (let at = 1; at < argv.length; at += 2) {
    const name = argv[at] ?? "";
    const value = argv[at + 1];
    if (value === undefined || value.startsWith("-")) {
      bare.push(name);
      at -= 1;
    } else if (name === "-chardev") bare.push(name, bareChardev(value));
    else if (name === "-netdev") bare.push(name, value.replace(/ifname=[^,]+/, `ifname=${tap}`));
    else if (name === "-blockdev") bare.push(name, value.replace(/filename=[^,]+/, "filename=/disk/root.raw"));
    else if (name !== "-add-fd") bare.push(name, value);
  }
  return bare;
};
