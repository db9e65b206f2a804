/** Tests that need a machine's tools: skipped with a reason by hand, failed where they must run. */
import { expect, it } from "vitest";
import { cannotRunWithout } from "./support/tools.ts";

it("says what is missing", async () => {
  const here = { uid: 0, required: false };
  expect(await cannotRunWithout(["sh"], "a shell", here)).toBeUndefined();
  expect(await cannotRunWithout(["sh", "no-such-tool"], "it", here)).toBe("there is no no-such-tool; install it");
  expect(await cannotRunWithout(["sh"], "a shell", { ...here, uid: 1000 })).toBe("not root");
});

it("fails where all tools must be there", async () => {
  const required = { uid: 0, required: true };
  expect(await cannotRunWithout(["sh"], "a shell", required)).toBeUndefined();
  const words = "these tests must run (DROVER_REQUIRE_TOOLS=1), and cannot: there is no no-such-tool; install it";
  await expect(cannotRunWithout(["no-such-tool"], "it", required)).rejects.toThrow(words);
  await expect(cannotRunWithout(["sh"], "a shell", { ...required, uid: 1000 })).rejects.toThrow("not root");
});
