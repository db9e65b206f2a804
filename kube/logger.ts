/** Structured logs: one JSON object per line on stdout, secrets left out. */
import { pino, type DestinationStream, type Logger as PinoLogger } from "pino";

export type Logger = PinoLogger;

// Whatever is logged by mistake under these names, at the top or one or two levels down, is not printed.
const SECRETS = ["authorization", "Authorization", "token", "password", "secret", "key", "cert", "data", "stringData"];

/**
 * The logger of a process. `LOG_LEVEL` sets what is printed (default info).
 * @param name which program speaks, such as `operator`
 */
export const rootLogger = (name: string, destination?: DestinationStream): Logger =>
  pino(
    {
      name,
      level: process.env["LOG_LEVEL"] ?? "info",
      base: { name },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: SECRETS.filter((path) => path !== "key" && path !== "data")
          .flatMap((path) => [path, `*.${path}`, `*.*.${path}`])
          .concat(["*.data", "*.*.data"]),
        censor: "[redacted]",
      },
    },
    ...(destination ? [destination] : []),
  );

/** Says nothing: for tests and for callers who gave no logger. */
export const silentLogger: Logger = pino({ level: "silent" });
