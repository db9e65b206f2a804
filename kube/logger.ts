/** Structured logs: one JSON object per line on stdout, secrets left out. */
import { pino, type DestinationStream, type Logger as PinoLogger } from "pino";

export type Logger = PinoLogger;

// What is logged by mistake under these names, at the top or one or two levels down, is not printed.
const SECRETS = ["authorization", "Authorization", "token", "password", "stringData"];
// A Secret's content; `data` alone is too common a word.
const BELOW = ["data"];

const paths = [...SECRETS, ...[...SECRETS, ...BELOW].flatMap((name) => [`*.${name}`, `*.*.${name}`])];

/**
 * The logger of a process. `LOG_LEVEL` sets what is printed (default info).
 * @param name which program speaks, such as `operator`
 */
export const rootLogger = (name: string, destination?: DestinationStream): Logger =>
  pino(
    {
      level: process.env["LOG_LEVEL"] ?? "info",
      base: { name },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths, censor: "[redacted]" },
    },
    ...(destination ? [destination] : []),
  );

/** Says nothing: for tests and for callers who gave no logger. */
export const silentLogger: Logger = pino({ level: "silent" });
