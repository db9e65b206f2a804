/** The wire of a watch: an endless HTTP answer in, typed events out. No retries here; the informer decides about those. */
import { StringDecoder } from "node:string_decoder";
import type { KubeClient, ListOptions } from "./client.ts";
import { TransportError, apiErrorFrom, errorText } from "./errors.ts";
import { resourcePath, resourceText } from "./resources.ts";
import type { KubeObject, ResourceType } from "./types.ts";

export type WatchEvent<T> = { type: "ADDED" | "MODIFIED" | "DELETED"; object: T } | { type: "BOOKMARK"; resourceVersion: string };

export interface WatchOptions extends ListOptions {
  resourceVersion: string;
  /** After which the server ends the watch in good order, s. */
  timeoutSeconds: number;
  /** For the headers of the answer, ms. */
  deadlineMs: number;
  signal: AbortSignal;
}

/**
 * Yields events until the server ends the watch in good order (returns) or it breaks (throws). An ERROR event is thrown as
 * ApiError, so a 410 in the stream and a 410 as HTTP status are the same to the caller.
 */
export async function* watchEvents<T extends KubeObject>(
  client: KubeClient,
  type: ResourceType<T>,
  options: WatchOptions,
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const asked = `watch ${resourceText(type)}`;
  const { namespace, labelSelector, fieldSelector, resourceVersion, timeoutSeconds, deadlineMs, signal } = options;
  const stream = await client.transport.stream({
    method: "GET",
    path: resourcePath(type, namespace === undefined ? {} : { namespace }),
    query: {
      watch: "true",
      allowWatchBookmarks: "true",
      resourceVersion,
      timeoutSeconds: String(timeoutSeconds),
      labelSelector,
      fieldSelector,
    },
    deadlineMs,
    signal,
  });
  const { response } = stream;
  const stop = (): void => void response.destroy();
  signal.addEventListener("abort", stop, { once: true });
  try {
    if (signal.aborted) return;
    const lines = splitLines(response);
    if (stream.status !== 200) {
      const words: string[] = [];
      for await (const line of lines) words.push(line);
      throw apiErrorFrom(asked, stream.status, words.join("\n"), stream.retryAfter);
    }
    for await (const line of lines) {
      const event = parseEvent<T>(asked, line);
      if (event) yield event;
    }
  } catch (error) {
    if (isNodeError(error)) throw new TransportError(`${asked}: the stream broke off: ${errorText(error)}`, { cause: error });
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
    response.destroy();
  }
}

const isNodeError = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && "code" in error && typeof error.code === "string";

/** Lines of a byte stream, however it was cut into chunks. An unfinished last line is dropped: it is no whole event. */
export async function* splitLines(chunks: AsyncIterable<Buffer>): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder("utf8");
  // Pieces are joined once per line, so that one huge object in a thousand chunks is not copied a thousand times.
  let pieces: string[] = [];
  for await (const chunk of chunks) {
    const text = decoder.write(chunk);
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      pieces.push(text.slice(start, end));
      const line = pieces.join("");
      pieces = [];
      start = end + 1;
      if (line !== "") yield line;
    }
    if (start < text.length) pieces.push(text.slice(start));
  }
}

/** One line of a watch; undefined for a kind of event that is not known (a newer server's). */
export const parseEvent = <T extends KubeObject>(asked: string, line: string): WatchEvent<T> | undefined => {
  let event: { type: unknown; object?: T & { code?: number } };
  try {
    event = JSON.parse(line) as typeof event;
  } catch (cause) {
    throw new TransportError(`${asked}: not JSON: ${line.slice(0, 100)}`, { cause });
  }
  if (!event.object) throw new TransportError(`${asked}: an event without object: ${line.slice(0, 100)}`);
  switch (event.type) {
    case "ADDED":
    case "MODIFIED":
    case "DELETED":
      return { type: event.type, object: event.object };
    case "BOOKMARK":
      return { type: "BOOKMARK", resourceVersion: event.object.metadata.resourceVersion ?? "" };
    case "ERROR":
      throw apiErrorFrom(asked, event.object.code ?? 500, JSON.stringify(event.object));
    default:
      return undefined;
  }
};
