/** Whether this machine has what a test needs; where it must have it, that is no question. */
import { execa } from "execa";

/**
 * Why tests with these commands cannot run here: a word for the title of what is skipped; undefined when they can.
 * @param packages what to install, in words
 * @throws the same, with DROVER_REQUIRE_TOOLS=1: `make test` installs all tools, and a test that did not run is none that passed
 */
export async function cannotRunWithout(
  commands: readonly string[],
  packages: string,
  { uid = process.getuid?.(), required = process.env["DROVER_REQUIRE_TOOLS"] === "1" } = {},
): Promise<string | undefined> {
  const why = uid === 0 ? await missing(commands, packages) : "not root";
  if (why !== undefined && required) throw new Error(`these tests must run (DROVER_REQUIRE_TOOLS=1), and cannot: ${why}`);
  return why;
}

async function missing(commands: readonly string[], packages: string): Promise<string | undefined> {
  const looked = commands.map(async (command) => {
    const { exitCode } = await execa("which", [command], { reject: false, timeout: 10_000 });
    return exitCode === 0 ? [] : [command];
  });
  const names = (await Promise.all(looked)).flat();
  return names.length === 0 ? undefined : `there is no ${names.join(", ")}; install ${packages}`;
}
