/** A guest whose QEMU Drover replaces: a Migration of mode InPlace, as a user makes it. */
import type { Instance } from "../../crds/instance.ts";
import { accountOf } from "../bench/memory.ts";
import { carryOut, KeptTraces, type MoveWatch } from "../bench-migration/drover.ts";
import type { Updated, Updater } from "./updater.ts";

export class DroverUpdates implements Updater {
  readonly way = "drover";
  readonly address: string;
  readonly node: string;
  readonly account: string;
  readonly #name: string;
  readonly #watch: MoveWatch;
  readonly #traces: KeptTraces;
  #version: string;

  private constructor(of: Instance, watch: MoveWatch, account: string) {
    const { ip, nodeName, guest } = of.status ?? {};
    if (ip === undefined || nodeName === undefined || guest?.runtimeVersion === undefined)
      throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
    this.address = ip;
    this.node = nodeName;
    this.account = account;
    this.#name = of.metadata.name;
    this.#watch = watch;
    this.#traces = new KeptTraces(of.metadata.uid);
    this.#version = guest.runtimeVersion;
  }

  static async of(instance: Instance, watch: MoveWatch): Promise<DroverUpdates> {
    const { nodeName = "", guest } = instance.status ?? {};
    return new DroverUpdates(instance, watch, await accountOf(nodeName, guest?.claimUid ?? ""));
  }

  get version(): string {
    return this.#version;
  }

  prepare(): Promise<void> {
    return this.#traces.keep();
  }

  async update(to: string): Promise<Updated> {
    const { end, totalMs, course } = await carryOut(this.#watch, { instance: this.#name, mode: "InPlace", runtime: to });
    this.#version = to;
    const timeline = end.status?.source?.timeline;
    return { totalMs, course, ...(timeline === undefined ? {} : { timeline }) };
  }

  traces(): Promise<string[]> {
    return this.#traces.read();
  }

  remove(): Promise<void> {
    return this.#traces.remove();
  }
}
