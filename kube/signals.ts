/** The end of a process as an AbortSignal. */

/**
 * Aborts at the first SIGTERM or SIGINT, so that work is drained; a second one ends the process at once, with the exit code
 * shells expect. May be called often: it is always the same signal.
 */
export const untilSignal = (): AbortSignal => {
  shared ??= listen();
  return shared;
};

let shared: AbortSignal | undefined;

const NUMBERS = { SIGTERM: 15, SIGINT: 2 } as const;

const listen = (): AbortSignal => {
  const controller = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(128 + NUMBERS[name]);
      controller.abort(new Error(`stopped by ${name}`));
    });
  }
  return controller.signal;
};
