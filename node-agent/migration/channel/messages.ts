/** What the two agents of a move say to each other: few words, none of them larger than a screen. */
import { z } from "zod";

/** More than any message needs; what is longer ends the connection. */
export const LARGEST_MESSAGE = 16 * 1024;

const words = { reason: z.string().max(64), message: z.string().max(4096), retryable: z.boolean() };

/** From the source's agent to the target's. */
export const sourceMessage = z.discriminatedUnion("type", [
  /** Asks where to send memory and disks; may be asked again at any time. */
  z.object({ type: z.literal("want-offer") }),
  /** All state has been sent (post-copy: but for memory), and it is noted here that the guest is gone: the target may run it. */
  z.object({ type: z.literal("go"), attempt: z.int(), postCopy: z.boolean() }),
  /** Post-copy: the rest of the memory has been sent; or its QEMU has ended before that. */
  z.object({ type: z.literal("rest"), sent: z.boolean() }),
  /** Post-copy: asks where to send the rest of the memory, for the connection broke. */
  z.object({ type: z.literal("want-rest") }),
  /** The source's QEMU is not connected to the target's any more. */
  z.object({ type: z.literal("let-go") }),
  /** The source runs on, and sends no more. */
  z.object({ type: z.literal("gave-up"), ...words }),
]);

/** From the target's agent to the source's. */
export const targetMessage = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("offer"),
    address: z.string().max(64),
    ramPort: z.int().min(1).max(65_535),
    diskPort: z.int().min(1).max(65_535).optional(),
    /** TLS-PSK of this attempt alone. */
    secret: z.object({ identity: z.string().max(128), key: z.string().max(256) }).optional(),
    streams: z.int().min(0).max(64),
    postCopy: z.boolean(),
    /** Copying may begin; the guest itself may not come before this is true, or not said. The offer is then said again. */
    settled: z.boolean().optional(),
  }),
  /** The guest runs here, since `agoMs`. `marks`: the steps since `go` came, ms, of the agent that let it run. */
  z.object({
    type: z.literal("ran"),
    marks: z.array(z.object({ mark: z.string().max(32), ms: z.number() })).max(16),
    agoMs: z.number().min(0).optional(),
  }),
  /** Post-copy: the connection broke, and memory is missing here. */
  z.object({ type: z.literal("interrupted") }),
  /** Where the rest of the memory is taken, once. */
  z.object({ type: z.literal("rest-here"), address: z.string().max(64), ramPort: z.int().min(1).max(65_535) }),
  /** It is noted here that a `go` will not be obeyed: only the record counts from now on. */
  z.object({ type: z.literal("refusing") }),
  /** The target takes no more. */
  z.object({ type: z.literal("gave-up"), ...words }),
]);

export type SourceMessage = z.infer<typeof sourceMessage>;
export type TargetMessage = z.infer<typeof targetMessage>;
