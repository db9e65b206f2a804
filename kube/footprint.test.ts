import { execa } from "execa";
import { describe, expect, it } from "vitest";

// Each process of Drover pays for what this loads: memory of every node. The figures are in docs/decisions/0001.
const script = `
  import { registerHooks } from "node:module";
  const loaded = [];
  registerHooks({ load: (url, context, next) => { loaded.push(url); return next(url, context); } });
  await import("./index.ts");
  const index = loaded.length;
  const { OperatorProcess } = await import("./operator.ts");
  class Probe extends OperatorProcess { init() { return Promise.resolve(); } }
  new Probe({ client: {}, logger: { info() {} }, manager: "x" });
  console.log(JSON.stringify({ index: loaded.slice(0, index), operator: loaded.slice(index) }));
`;

describe("what a pod's process loads", () => {
  it("none of client-node's generated APIs, no undici, and the Operator class without its own client", async () => {
    const { stdout } = await execa(process.execPath, ["--input-type=module", "--eval", script], {
      cwd: import.meta.dirname,
      timeout: 60_000,
    });
    const { index, operator } = JSON.parse(stdout) as { index: string[]; operator: string[] };
    expect(index.filter((url) => url.includes("/@kubernetes/client-node/")).map((url) => url.split("/dist/")[1])).toEqual([
      "file_auth.js",
    ]);
    expect(index.filter((url) => /undici|k8s-operator|js-yaml/.test(url))).toEqual([]);
    expect(operator.filter((url) => url.includes("/@dot-i/k8s-operator/"))).toHaveLength(1);
    expect(operator.filter((url) => /client-node|gaxios/.test(url))).toEqual([]);
  });
});
