/** A Go toolchain that can fetch the one a go.mod asks for: the machine's, or Debian's. */
import { exists } from "./files.ts";
import { LabError, run } from "./run.ts";
import { installPackages, withBackports } from "./packages.ts";

/** Since 1.21 `go` fetches the toolchain that go.mod names. Pure. */
export const canFetchToolchains = (printed: string): boolean => {
  const match = /go version go(\d+)\.(\d+)/.exec(printed);
  return match !== null && (Number(match[1]) > 1 || Number(match[2]) >= 21);
};

const usable = async (path: string): Promise<boolean> =>
  canFetchToolchains(await run(path, ["version"], { env: { GOTOOLCHAIN: "local" } }).catch(() => ""));

/** Path of `go`. Installs Debian's when the machine has none that is new enough. Throws a sentence when that cannot be done. */
export const findGo = async (): Promise<string> => {
  const known = [
    "go",
    "/usr/local/go/bin/go",
    ...["1.26", "1.25", "1.24", "1.23"].map((version) => `/usr/lib/go-${version}/bin/go`),
  ];
  for (const path of known) if (await usable(path)) return path;
  const codename = (await run("sh", ["-c", ". /etc/os-release && echo $VERSION_CODENAME"])).trim();
  if (codename === "bookworm") await withBackports(() => installPackages(["golang-1.23-go"]));
  else await installPackages(["golang-go"]);
  for (const path of known) if ((path === "go" || (await exists(path))) && (await usable(path))) return path;
  throw new LabError(
    "there is no Go 1.21 or newer on this machine, and apt has none: install Go from https://go.dev/dl and try again",
  );
};
