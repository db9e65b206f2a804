/** Loads the Operator class of @dot-i/k8s-operator without the client that it brings along. */
import { createRequire, registerHooks } from "node:module";
import type OperatorModule from "@dot-i/k8s-operator";

const REPLACED = new Set(["@kubernetes/client-node", "gaxios"]);
const replacement = new URL("./operator-base-client.ts", import.meta.url).href;

/** The package's exports. Its two heavy imports are replaced while it loads, and for it alone. */
export const loadOperatorModule = (): typeof OperatorModule => {
  const hooks = registerHooks({
    resolve: (specifier, context, next) =>
      REPLACED.has(specifier) && context.parentURL?.includes("/@dot-i/k8s-operator/")
        ? { url: replacement, format: "module-typescript", shortCircuit: true }
        : next(specifier, context),
  });
  try {
    return createRequire(import.meta.url)("@dot-i/k8s-operator") as typeof OperatorModule;
  } finally {
    hooks.deregister();
  }
};
