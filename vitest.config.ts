import { defineConfig } from "vitest/config";

const rooms = ["crds", "kube", "ovsdb", "operator", "node-agent", "hack"];

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: rooms.map((room) => `${room}/**/*.test.ts`), testTimeout: 60_000 } },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          // Most of them wait for a process of their own; more at once would make guests too slow for their deadlines on two cores.
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
