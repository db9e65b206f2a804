/** Types that more than one room of the agent uses. */

/** What a program on the node said. */
export interface ExecResult {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** Something that is not ready yet, and why: a CamelCase word and a sentence that says what to change. */
export interface NotReady {
  ready: false;
  reason: string;
  message: string;
}

/** Who a guest's process is on the node. Its files and taps belong to it. */
export interface GuestIdentity {
  uid: number;
  gid: number;
}
