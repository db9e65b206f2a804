/** The controller runtime. README.md tells what it promises; each file tells how. `@public`: offered, though Drover needs it not (yet). */
export type {
  Change,
  /** @public */
  Condition,
  /** @public */
  DeepPartial,
  /** @public */
  Draft,
  JsonPatchOp,
  KubeObject,
  ObjectKey,
  /** @public */
  ObjectMeta,
  /** @public */
  OwnerReference,
  ResourceType,
} from "./types.ts";
export type * from "./builtin.ts";
export { resource, resources } from "./resources.ts";
export { keyOf, keyText, ownerKeys, parseKey } from "./keys.ts";
export {
  ApiError,
  errorText,
  /** @public */ TerminalError,
  /** @public */ TransportError,
} from "./errors.ts";
export { KubeClient, /** @public */ type ClientOptions, /** @public */ type ListOptions } from "./client.ts";
export { Informer, type InformerOptions } from "./informer.ts";
export { Controller, /** @public */ type ControllerOptions } from "./controller.ts";
export type { Requeue } from "./queue.ts";
export { backoffMs, /** @public */ type BackoffOptions } from "./backoff.ts";
export { findCondition, isTrue, sameStatus, setCondition } from "./conditions.ts";
export { EventRecorder } from "./events.ts";
export { ensureFinalizer, removeFinalizer } from "./finalizers.ts";
export { LeaderElector, NotLeadingError } from "./leader.ts";
export { serveHealth, /** @public */ type HealthServer } from "./health.ts";
export { registry } from "./metrics.ts";
export { rootLogger, silentLogger, type Logger } from "./logger.ts";
export { FakeClock, realClock, sleep, type Clock } from "./clock.ts";
export { untilSignal } from "./signals.ts";
