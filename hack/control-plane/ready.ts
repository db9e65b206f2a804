/** Waiting until a server answers well, or telling why it will not. */
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { certificateFiles, type Pki } from "./pki.ts";

/** One GET with the administrator's certificate: the status, or 0 when there was no answer. Nothing but our own CA is trusted. */
export type Probe = (url: string, pki: Pki) => Promise<number>;

/** Asks from this process's own network namespace. */
export const probe: Probe = async (url, pki) => {
  const files = certificateFiles(pki, "admin");
  const [ca, cert, key] = await Promise.all([pki.ca, files.cert, files.key].map((file) => readFile(file)));
  return new Promise((resolve) => {
    const asked = request(url, { ca, cert, key, agent: false, timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.on("timeout", () => asked.destroy());
    asked.on("error", () => resolve(0));
    asked.end();
  });
};

/** As probe, for servers with a certificate of their own making, on the loopback. */
export const probeAlive: Probe = (url) =>
  new Promise((resolve) => {
    const asked = request(url, { rejectUnauthorized: false, agent: false, timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.on("timeout", () => asked.destroy());
    asked.on("error", () => resolve(0));
    asked.end();
  });

export interface Awaited {
  name: string;
  url: string;
  pki: Pki;
  pid: number;
  logFile: string;
  probe: Probe;
  deadlineMs: number;
}

/**
 * Resolves when the server answers 200.
 * @throws with the end of its log when its process ends first (a taken port, a flag it does not know) or the deadline passes
 */
export const untilReady = async ({ name, url, pki, pid, logFile, probe: ask, deadlineMs }: Awaited): Promise<void> => {
  const end = performance.now() + deadlineMs;
  for (;;) {
    // The process first: if it has ended, whoever answers at that address is somebody else.
    if (!isAlive(pid)) throw new Error(`${name} ended; its log ends with:\n${await lastLines(logFile)}`);
    if ((await ask(url, pki)) === 200) return;
    if (performance.now() > end)
      throw new Error(`${name} was not ready within ${deadlineMs / 1000} s; its log ends with:\n${await lastLines(logFile)}`);
    // There is no event to wait for: readiness can only be asked.
    await sleep(50);
  }
};

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const lastLines = async (file: string): Promise<string> => {
  const text = await readFile(file, "utf8").catch((error: unknown) => `(no log: ${String(error)})`);
  return text.trimEnd().split("\n").slice(-8).join("\n");
};
