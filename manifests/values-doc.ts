/** docs/values.md, from the chart's values.yaml: every value with its default and the comment above it. Pure. */
import { parse } from "yaml";

interface Value {
  path: string;
  about: string;
}

/** Values with a comment, in the order of the file. A comment belongs to the key right below it. */
const commented = (text: string): Value[] => {
  const values: Value[] = [];
  const parents: { indent: number; name: string }[] = [];
  let about: string[] = [];
  for (const line of text.split("\n")) {
    const comment = /^\s*# (.*)$/.exec(line)?.[1];
    const key = /^(\s*)([A-Za-z]+):/.exec(line);
    if (comment !== undefined) {
      about.push(comment);
      continue;
    }
    const [, space, name] = key ?? [];
    if (space !== undefined && name !== undefined) {
      while (parents.length > 0 && (parents.at(-1)?.indent ?? 0) >= space.length) parents.pop();
      parents.push({ indent: space.length, name });
      if (about.length > 0) values.push({ path: parents.map((parent) => parent.name).join("."), about: about.join(" ") });
    }
    about = [];
  }
  return values;
};

const at = (values: unknown, path: string): unknown =>
  path.split(".").reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], values);

const isTree = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length > 0;

/** Paths of all values that a user can set; a value with a comment is one, whatever is in it. */
const leaves = (value: unknown, known: Set<string>, path: string): string[] =>
  isTree(value) && !known.has(path)
    ? Object.entries(value).flatMap(([key, one]) => leaves(one, known, path === "" ? key : `${path}.${key}`))
    : [path];

/** The page. Throws when a value has no comment. */
export const valuesDoc = (text: string): string => {
  const values: unknown = parse(text);
  const known = commented(text).filter(({ path }) => at(values, path) !== undefined);
  const settable = leaves(values, new Set(known.map(({ path }) => path)), "");
  const bare = settable.filter((path) => !known.some((one) => one.path === path));
  if (bare.length > 0) throw new Error(`manifests/chart/values.yaml: say what ${bare.join(", ")} is, in a comment above it`);
  const group = (path: string) => known.some((one) => one.path.startsWith(`${path}.`));
  const rows = known.map(({ path, about }) => {
    const fallback = group(path) ? "" : `\`${JSON.stringify(at(values, path))}\``;
    return `| \`${path}\` | ${fallback} | ${about.replaceAll("|", "\\|").replaceAll("<", "&lt;")} |`;
  });
  return [
    "# Values of the Helm chart",
    "",
    "<!-- Generated from manifests/chart/values.yaml by `npm run crds`. -->",
    "",
    "A name that is not here, or a value of the wrong kind, is refused by `helm install` and `helm upgrade`, with its name.",
    "The release's namespace must allow privileged pods (`pod-security.kubernetes.io/enforce: privileged`): agents act on their nodes.",
    "Kubernetes 1.32 or newer.",
    "",
    "| value | default | what it is |",
    "|---|---|---|",
    ...rows,
    "",
  ].join("\n");
};
