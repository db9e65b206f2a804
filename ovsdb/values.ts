/** OVSDB's values (RFC 7047 §5.1) and what they are here: sets are arrays, maps are Maps, references are {uuid}. */

/** A reference to a row that is in the database. */
export interface Uuid {
  readonly uuid: string;
}
/** A reference to a row that the same transaction inserts. */
export interface NamedUuid {
  readonly namedUuid: string;
}
export type Atom = string | number | boolean | Uuid | NamedUuid;
/** A set of one element may be written as that element alone (a replica's rows always hold an array): the as...() functions take both. */
export type Value = Atom | readonly Atom[] | ReadonlyMap<Atom, Atom>;
export type Row = Readonly<Record<string, Value>>;

export const uuid = (text: string): Uuid => ({ uuid: text });
export const namedUuid = (name: string): NamedUuid => ({ namedUuid: name });
/** A map column from a plain record. */
export const mapOf = (record: Readonly<Record<string, string>>): ReadonlyMap<Atom, Atom> => new Map(Object.entries(record));

const isSet = (value: Value): value is readonly Atom[] => Array.isArray(value);
const isMap = (value: Value): value is ReadonlyMap<Atom, Atom> => value instanceof Map;

/** Thrown for a value that is not what the caller, or RFC 7047, says it is. */
export class ValueError extends Error {
  override name = "ValueError";
}

/** An atom as text; a reference as its uuid (or name). */
export const atomText = (atom: Atom): string => {
  if (typeof atom !== "object") return String(atom);
  return "uuid" in atom ? atom.uuid : atom.namedUuid;
};

const encodeAtom = (atom: Atom): unknown => {
  if (typeof atom !== "object") return atom;
  return "uuid" in atom ? ["uuid", atom.uuid] : ["named-uuid", atom.namedUuid];
};

/** A value as it goes over the wire. */
export const encodeValue = (value: Value): unknown => {
  if (isMap(value)) return ["map", [...value].map(([key, item]) => [encodeAtom(key), encodeAtom(item)])];
  if (isSet(value)) return ["set", value.map(encodeAtom)];
  return encodeAtom(value);
};

export const encodeRow = (row: Row): Record<string, unknown> =>
  Object.fromEntries(Object.entries(row).map(([column, value]) => [column, encodeValue(value)]));

const decodeAtom = (raw: unknown): Atom => {
  if (typeof raw === "string" || typeof raw === "number" || typeof raw === "boolean") return raw;
  if (Array.isArray(raw) && raw.length === 2 && typeof raw[1] === "string") {
    if (raw[0] === "uuid") return { uuid: raw[1] };
    if (raw[0] === "named-uuid") return { namedUuid: raw[1] };
  }
  throw new ValueError(`not an OVSDB atom: ${JSON.stringify(raw)}`);
};

/** A value as it came over the wire. Throws ValueError for what RFC 7047 does not know. */
export const decodeValue = (raw: unknown): Value => {
  if (!Array.isArray(raw)) return decodeAtom(raw);
  const [kind, body] = raw as [unknown, unknown];
  if (kind === "set" && Array.isArray(body)) return body.map(decodeAtom);
  if (kind === "map" && Array.isArray(body)) {
    return new Map(
      body.map((pair: unknown) => {
        if (!Array.isArray(pair) || pair.length !== 2) throw new ValueError(`not an OVSDB pair: ${JSON.stringify(pair)}`);
        return [decodeAtom(pair[0]), decodeAtom(pair[1])] as const;
      }),
    );
  }
  return decodeAtom(raw);
};

export const decodeRow = (raw: Readonly<Record<string, unknown>>): Row =>
  Object.fromEntries(Object.entries(raw).map(([column, value]) => [column, decodeValue(value)]));

/** The atoms of a column: none for an absent one, one for a lone atom. */
export const asAtoms = (value: Value | undefined): readonly Atom[] => {
  if (value === undefined) return [];
  if (isMap(value)) throw new ValueError("the column is a map, not a set");
  return isSet(value) ? value : [value];
};

/** A set as texts; references as their uuids. */
export const asSet = (value: Value | undefined): string[] => asAtoms(value).map(atomText);

/** A map as texts, empty for an absent column. */
export const asMap = (value: Value | undefined): Map<string, string> => {
  if (value === undefined || (isSet(value) && value.length === 0)) return new Map();
  if (!isMap(value)) throw new ValueError("the column is not a map");
  return new Map([...value].map(([key, item]) => [atomText(key), atomText(item)]));
};

/** The one element of a column that holds at most one; undefined when it holds none. */
export const asOptional = (value: Value | undefined): string | undefined => {
  const atoms = asAtoms(value);
  if (atoms.length > 1) throw new ValueError(`the column holds ${atoms.length} values, not one`);
  return atoms[0] === undefined ? undefined : atomText(atoms[0]);
};

/** A column that must hold one value, as text. */
export const asString = (value: Value | undefined): string => {
  const text = asOptional(value);
  if (text === undefined) throw new ValueError("the column is empty");
  return text;
};

/** A column that must hold one number. */
export const asNumber = (value: Value | undefined): number => {
  const [atom, more] = asAtoms(value);
  if (typeof atom !== "number" || more !== undefined) throw new ValueError("the column is not one number");
  return atom;
};

/** A column that holds true, false or (undefined) neither. */
export const asBoolean = (value: Value | undefined): boolean | undefined => {
  const [atom, more] = asAtoms(value);
  if (atom === undefined) return undefined;
  if (typeof atom !== "boolean" || more !== undefined) throw new ValueError("the column is not one boolean");
  return atom;
};

const atomKey = (atom: Atom): string => {
  if (typeof atom !== "object") return JSON.stringify(atom);
  return "uuid" in atom ? `u:${atom.uuid}` : `n:${atom.namedUuid}`;
};

/** The same text for equal values, whatever the order of a set or map and however a set of one was written. */
export const canonical = (value: Value): string => {
  if (isMap(value))
    return `{${[...value]
      .map(([key, item]) => `${atomKey(key)}:${atomKey(item)}`)
      .sort()
      .join(",")}}`;
  return `[${[...new Set(asAtoms(value).map(atomKey))].sort().join(",")}]`;
};

/** Whether two values are the same to the database. An empty map and an empty set are. */
export const sameValue = (a: Value, b: Value): boolean => {
  const [left, right] = [canonical(a), canonical(b)];
  return left === right || (["{}", "[]"].includes(left) && ["{}", "[]"].includes(right));
};

export { isMap as isMapValue };
