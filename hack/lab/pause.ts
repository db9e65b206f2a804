/** The pause program and the image of pod sandboxes: a few lines of C, made with gcc and tar only. */
import { chmod, copyFile, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hashOf, madeOnce, sha256Of } from "./files.ts";
import type { Lab } from "./identity.ts";
import type { BuiltImage } from "./images.ts";
import { SANDBOX_IMAGE } from "./node/config.ts";
import { run } from "./run.ts";

const source = join(import.meta.dirname, "node", "pause.c");

/** The static program, in the cache. */
export const ensurePause = async (lab: Lab): Promise<{ program: string; key: string }> => {
  const key = await hashOf(import.meta.dirname, ["node/pause.c"]);
  const program = await madeOnce(join(lab.cache, "lab", `pause-${key}`), async (temporary) => {
    await run("gcc", ["-Os", "-static", "-s", "-Wall", "-o", temporary, source], { deadlineMs: 60_000 });
  });
  return { program, key };
};

/** An image with that program alone, as a docker-archive in the cache. */
export const ensurePauseImage = async (lab: Lab): Promise<BuiltImage> => {
  const { program, key } = await ensurePause(lab);
  const archive = await madeOnce(join(lab.cache, "images", `pause-${key}.tar`), async (temporary) => {
    const work = `${temporary}.d`;
    const tar = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
    try {
      await mkdir(join(work, "root"), { recursive: true });
      await copyFile(program, join(work, "root", "pause"));
      await chmod(join(work, "root", "pause"), 0o755);
      await run("tar", [...tar, "-C", join(work, "root"), "-cf", join(work, "layer.tar"), "."]);
      const rootfs = { type: "layers", diff_ids: [`sha256:${await sha256Of(join(work, "layer.tar"))}`] };
      const architecture = process.arch === "x64" ? "amd64" : process.arch;
      const config = { architecture, os: "linux", config: { Entrypoint: ["/pause"] }, rootfs, history: [{ created_by: "lab" }] };
      await writeFile(join(work, "config.json"), JSON.stringify(config));
      const manifest = [{ Config: "config.json", RepoTags: [SANDBOX_IMAGE], Layers: ["layer.tar"] }];
      await writeFile(join(work, "manifest.json"), JSON.stringify(manifest));
      await run("tar", [...tar, "-C", work, "-cf", temporary, "manifest.json", "config.json", "layer.tar"]);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
  return { target: "pause", name: SANDBOX_IMAGE, key, archive };
};
