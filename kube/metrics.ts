/** What the runtime counts, in one registry of its own; a process adds its own metrics to it. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

/** Everything of kube/ is registered here; hand it to serveHealth. */
export const registry = new Registry();

const registers = [registry];

export const informerMetrics = {
  lists: new Counter({
    name: "kube_informer_lists_total",
    help: "Lists that an informer began, by result.",
    labelNames: ["resource", "result"],
    registers,
  }),
  watches: new Counter({
    name: "kube_informer_watches_total",
    help: "Watches that ended, by why.",
    labelNames: ["resource", "end"],
    registers,
  }),
  events: new Counter({
    name: "kube_informer_events_total",
    help: "Watch events received, bookmarks too.",
    labelNames: ["resource", "type"],
    registers,
  }),
  handlerErrors: new Counter({
    name: "kube_informer_handler_errors_total",
    help: "Handlers that threw.",
    labelNames: ["resource"],
    registers,
  }),
};

export const queueMetrics = {
  added: new Counter({
    name: "kube_queue_adds_total",
    help: "Keys put into the queue (those already in it not counted).",
    labelNames: ["controller"],
    registers,
  }),
  retries: new Counter({
    name: "kube_queue_retries_total",
    help: "Keys put back after a failure.",
    labelNames: ["controller"],
    registers,
  }),
  wait: new Histogram({
    name: "kube_queue_wait_seconds",
    help: "From put into the queue to taken out.",
    labelNames: ["controller"],
    buckets: [0.001, 0.01, 0.1, 1, 10, 60],
    registers,
  }),
  duration: new Histogram({
    name: "kube_reconcile_seconds",
    help: "One reconcile, by result (success, requeue, error, terminal).",
    labelNames: ["controller", "result"],
    buckets: [0.001, 0.01, 0.1, 0.5, 1, 5, 30, 120],
    registers,
  }),
};

export const leaderMetrics = {
  leading: new Gauge({ name: "kube_leader", help: "1 while this process leads.", labelNames: ["lease"], registers }),
  changes: new Counter({
    name: "kube_leader_changes_total",
    help: "Leaderships begun and ended here.",
    labelNames: ["lease", "change"],
    registers,
  }),
};

export const eventMetrics = new Counter({
  name: "kube_events_total",
  help: "Events recorded, by what became of them.",
  labelNames: ["result"],
  registers,
});

interface InformerFigures {
  resource: string;
  size: number;
  ageMs: number;
}

interface QueueFigures {
  controller: string;
  depth: number;
  delayed: number;
  running: number;
  /** How long the longest reconcile under way has run. */
  longestMs: number;
}

const informers = new Set<() => InformerFigures>();
const queues = new Set<() => QueueFigures>();

/** Shows these figures at each scrape until the returned function is called. */
export const exposeInformer = (figures: () => InformerFigures): (() => void) => {
  informers.add(figures);
  return () => void informers.delete(figures);
};

/** Shows these figures at each scrape until the returned function is called. */
export const exposeQueue = (figures: () => QueueFigures): (() => void) => {
  queues.add(figures);
  return () => void queues.delete(figures);
};

const gauge = <F>(
  name: string,
  help: string,
  label: string,
  sources: Set<() => F>,
  pick: (figures: F) => [label: string, value: number],
): void => {
  const shown = new Gauge({
    name,
    help,
    labelNames: [label],
    registers: [],
    collect() {
      shown.reset();
      const highest = new Map<string, number>();
      // Two informers of one resource: the larger figure is the one to look at.
      for (const source of sources) {
        const [text, value] = pick(source());
        highest.set(text, Math.max(value, highest.get(text) ?? 0));
      }
      for (const [text, value] of highest) shown.set({ [label]: text }, value);
    },
  });
  registry.registerMetric(shown);
};

gauge("kube_informer_last_event_age_seconds", "Since the last sign of life of a watch.", "resource", informers, (f) => [
  f.resource,
  f.ageMs / 1000,
]);
gauge("kube_informer_objects", "Objects in the cache.", "resource", informers, (f) => [f.resource, f.size]);
gauge("kube_queue_depth", "Keys waiting for a worker.", "controller", queues, (f) => [f.controller, f.depth]);
gauge("kube_queue_delayed", "Keys waiting for their time.", "controller", queues, (f) => [f.controller, f.delayed]);
gauge("kube_queue_running", "Reconciles under way.", "controller", queues, (f) => [f.controller, f.running]);
gauge("kube_reconcile_longest_running_seconds", "The oldest reconcile under way.", "controller", queues, (f) => [
  f.controller,
  f.longestMs / 1000,
]);
