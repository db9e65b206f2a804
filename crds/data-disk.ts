/** Disks of an instance beside the one that it boots from. */
import { z } from "zod";
import { bytes, dnsLabel, doc, QUANTITY_FORM, requiredByRule } from "./schema.ts";

/** As many as the machine has slots, less the root disk's. */
const DATA_DISKS_MAX = 7;
/** A guest finds a disk by its name, and the serial of a virtio disk has room for no more. */
const NAME_MAX = 20;

const dataDisk = z
  .object({
    name: dnsLabel(
      NAME_MAX,
      "Name of the disk within the instance, such as data. The guest finds it as /dev/disk/by-id/virtio-<name>.",
      { rule: "self != 'root'", message: "a disk cannot have the name root: that is rootDisk" },
    ),
    pool: requiredByRule(dnsLabel(58, "The StoragePool that it lies in. Required.")),
    size: requiredByRule(
      bytes(
        "size of a disk",
        "Its size, such as 100Gi. Required.",
        { rule: "quantity(self).compareTo(quantity('1Mi')) >= 0", message: "size of a disk must be at least 1Mi" },
        { rule: "quantity(self).compareTo(quantity('1Pi')) <= 0", message: "size of a disk must be at most 1Pi" },
      ),
    ),
  })
  .meta(
    doc(
      "A disk that is empty when the instance starts for the first time.",
      { rule: "has(self.pool)", message: "pool of a disk is required" },
      { rule: "has(self.size)", message: "size of a disk is required" },
    ),
  );

const shrunk =
  `self.exists(d, has(d.size) && d.size.matches('${QUANTITY_FORM}') && ` +
  "oldSelf.exists(o, o.name == d.name && quantity(d.size).compareTo(quantity(o.size)) < 0))";

/** An atomic list for the reason that nics are one. That it cannot change is a rule of the spec, for it may be left out. */
export const dataDisks = z
  .array(dataDisk)
  .max(DATA_DISKS_MAX)
  .meta({
    ...doc(
      "Disks beside the root disk, in the order that the guest sees them: /dev/vdb, /dev/vdc and so on.",
      {
        rule: "self.all(d, self.exists_one(e, e.name == d.name))",
        message: "two disks have the same name",
        messageExpression: "'two disks have the name %s'.format([self.filter(d, !self.exists_one(e, e.name == d.name))[0].name])",
      },
      { rule: `!${shrunk}`, message: "a disk cannot shrink" },
    ),
    "x-kubernetes-list-type": "atomic",
  });
