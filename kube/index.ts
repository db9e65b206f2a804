/** The controller runtime. README.md tells what it promises; each file tells how. */
export type {
  Change,
  Condition,
  DeepPartial,
  Draft,
  JsonPatchOp,
  KubeObject,
  ObjectKey,
  ObjectMeta,
  OwnerReference,
  ResourceType,
} from "./types.ts";
export type * from "./builtin.ts";
export { apiVersionOf, resource, resources, resourceText } from "./resources.ts";
export { keyOf, keyText, ownerKeys, parseKey } from "./keys.ts";
export { ApiError, errorText, TerminalError, TransportError } from "./errors.ts";
export { KubeClient, type ClientOptions, type ListOptions } from "./client.ts";
export { Informer, type InformerOptions } from "./informer.ts";
export { Controller, type ControllerOptions } from "./controller.ts";
export type { Requeue } from "./queue.ts";
export { backoffMs, type BackoffOptions } from "./backoff.ts";
export { findCondition, isTrue, sameStatus, setCondition } from "./conditions.ts";
export { EventRecorder } from "./events.ts";
export { ensureFinalizer, removeFinalizer } from "./finalizers.ts";
export { LeaderElector, NotLeadingError } from "./leader.ts";
export { serveHealth, type HealthServer } from "./health.ts";
export { registry } from "./metrics.ts";
export { rootLogger, silentLogger, type Logger } from "./logger.ts";
export { FakeClock, realClock, sleep, type Clock } from "./clock.ts";
export { untilSignal } from "./signals.ts";
