/** The node's certificate for OVN's southbound database: got and renewed here, used by ovn-controller, which is another pod. */
import { realClock, type KubeClient, type Logger } from "../../kube/index.ts";
import { readChassisFile, writeChassisFile } from "../identity/chassis-file.ts";
import { RenewedIdentity } from "../identity/identity.ts";
import { askForCertificate } from "../identity/request.ts";

export interface ChassisOptions {
  client: KubeClient;
  nodeName: string;
  directory: string;
  authority: string;
  log: Logger;
}

export class ChassisCertificate {
  readonly identity: RenewedIdentity;
  readonly #options: ChassisOptions;

  private constructor(options: ChassisOptions, identity: RenewedIdentity) {
    this.#options = options;
    this.identity = identity;
  }

  /** Goes on with what an earlier launcher left, so that a restart needs no operator. */
  static async open(options: ChassisOptions): Promise<ChassisCertificate> {
    const { client, nodeName, directory, authority, log } = options;
    const identity = new RenewedIdentity({
      // A certificate that could not be put down is not there: it is asked for again.
      ask: async (signal) => {
        const material = await askForCertificate({ client, node: nodeName, role: "chassis", authority, log }, signal);
        await writeChassisFile(directory, authority, material);
        return material;
      },
      clock: realClock,
      log,
      before: await readChassisFile(directory, authority),
    });
    return new ChassisCertificate(options, identity);
  }

  /** Puts the file back where somebody took it away. Changes nothing when it is there. */
  async ensureFile(): Promise<void> {
    const { directory, authority } = this.#options;
    const material = this.identity.current();
    if (material !== undefined && (await readChassisFile(directory, authority)) === undefined)
      await writeChassisFile(directory, authority, material);
  }

  /** What is wrong, in words. */
  get trouble(): string | undefined {
    if (this.identity.current() !== undefined) return undefined;
    return "ovn-controller has no valid certificate of this node; does the operator run? (kubectl get certificatesigningrequests)";
  }
}
