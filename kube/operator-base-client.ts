/**
 * What stands in for @kubernetes/client-node and gaxios while @dot-i/k8s-operator is loaded (see operator-base.ts). Its Operator
 * makes these objects in its constructor and uses them only in methods that OperatorProcess overrides; the real ones cost
 * 80 MB of memory in every process.
 */

const unused = (what: string): never => {
  throw new Error(`${what} of @dot-i/k8s-operator is not used here: OperatorProcess has its own`);
};

export class KubeConfig {
  loadFromDefault(): void {
    // OperatorProcess is given its client; nothing is to be loaded.
  }
  makeApiClient(): object {
    return {};
  }
  applyToHTTPSOptions(): never {
    return unused("HTTP authentication");
  }
}

/** Handed to makeApiClient as they are. */
export const CoreV1Api = {};
export const ApiextensionsV1Api = {};

export const loadYaml = (): never => unused("loadYaml");
export const instance = { request: (): never => unused("gaxios") };
