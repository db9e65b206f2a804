/** What keeps an instance from its network and a user can mend: one CamelCase word, and a sentence. Goes into a condition. */
export interface Problem {
  readonly reason: string;
  readonly message: string;
}

/** A problem on its way up. `waitsFor`: what has to change before it is worth another look (see Waiting). */
export class ProblemError extends Error {
  override name = "ProblemError";
  readonly problem: Problem;
  readonly waitsFor: readonly string[];

  constructor(problem: Problem, waitsFor: readonly string[]) {
    super(problem.message);
    this.problem = problem;
    this.waitsFor = waitsFor;
  }
}
