/** Tells what is being done and how long it took, one line per step. */

export interface Progress {
  /** Runs a step; prints when it begins (if it lasts) and when it is done, with its time. */
  step<T>(what: string, work: () => Promise<T>): Promise<T>;
  note(text: string): void;
}

/** Steps shorter than this get one line, not two. */
const QUIET_MS = 1_500;

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** Writes lines that begin with the time since the start. The clock is a parameter for tests. */
export const makeProgress = (
  write: (line: string) => void = (line) => process.stdout.write(`${line}\n`),
  now: () => number = () => performance.now(),
): Progress => {
  const begin = now();
  const line = (text: string): void => write(`[${seconds(now() - begin).padStart(8)}] ${text}`);
  return {
    note: line,
    step: async (what, work) => {
      const start = now();
      const timer = setTimeout(() => line(`${what} ...`), QUIET_MS);
      try {
        const result = await work();
        line(`${what}: ${seconds(now() - start)}`);
        return result;
      } catch (error) {
        line(`${what}: failed after ${seconds(now() - start)}`);
        throw error;
      } finally {
        clearTimeout(timer);
      }
    },
  };
};
