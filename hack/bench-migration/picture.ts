/** Every move as a dot: how long it was silent, and how long it took. An SVG that needs nothing else. Pure. */
import { median } from "../bench/figures.ts";
import type { Sample } from "./measure.ts";
import type { Way } from "./plan.ts";
import { casesOf } from "./compare.ts";
import { silence, total } from "./report.ts";
import { WORDS } from "./text.ts";

const COLOURS: Readonly<Record<Way, string>> = { hand: "#5b6770", drover: "#1f6feb", libvirt: "#b8860b", stop: "#c0392b" };
const PANEL = { left: 180, width: 330, gap: 60, top: 58, line: 17, between: 14 } as const;

interface Scale {
  at: (ms: number) => number;
  ticks: number[];
}

/** Logarithmic, over whole and half decades. */
const scaleOf = (values: readonly number[]): Scale => {
  const steps = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];
  const below = steps.findLast((step) => step <= Math.min(...values)) ?? 10;
  const above = steps.find((step) => step >= Math.max(...values)) ?? 100_000;
  const span = Math.log(above / below) || 1;
  return {
    at: (ms) => (Math.log(ms / below) / span) * PANEL.width,
    ticks: steps.filter((step) => step >= below && step <= above),
  };
};

const words = (ms: number): string => (ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`);
const text = (x: number, y: number, content: string, more = ""): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${content}</text>`;

interface Line {
  y: number;
  way: Way;
  samples: Sample[];
}

const panel = (title: string, x: number, lines: readonly Line[], of: (sample: Sample) => number, bottom: number): string => {
  const { at, ticks } = scaleOf(lines.flatMap(({ samples }) => samples.map(of)));
  const grid = ticks.map((tick) => {
    const place = (x + at(tick)).toFixed(1);
    return `<line x1="${place}" x2="${place}" y1="${PANEL.top - 8}" y2="${bottom}" stroke="#e3e6e8"/>${text(x + at(tick), bottom + 14, words(tick), 'text-anchor="middle" fill="#666"')}`;
  });
  const marks = lines.flatMap(({ y, way, samples }) => {
    const middle = x + at(median(samples.map(of)));
    const dots = samples.map(
      (one) => `<circle cx="${(x + at(of(one))).toFixed(1)}" cy="${y - 4}" r="3" fill="${COLOURS[way]}" fill-opacity="0.35"/>`,
    );
    return [
      ...dots,
      `<line x1="${middle.toFixed(1)}" x2="${middle.toFixed(1)}" y1="${y - 11}" y2="${y + 3}" stroke="${COLOURS[way]}" stroke-width="2.5"/>`,
    ];
  });
  return [text(x, PANEL.top - 18, title, 'font-weight="bold"'), ...grid, ...marks].join("\n");
};

export const picture = (samples: readonly Sample[]): string => {
  const usual = samples.filter(({ kind }) => kind === "usual");
  const lines: Line[] = [];
  const labels: string[] = [];
  let y = PANEL.top + 8;
  for (const name of casesOf(usual)) {
    for (const way of Object.keys(WORDS) as Way[]) {
      const some = usual.filter((one) => one.case === name && one.way === way);
      if (some.length === 0) continue;
      lines.push({ y, way, samples: some });
      labels.push(text(PANEL.left - 12, y, `${name} · ${WORDS[way]}`, `text-anchor="end" fill="${COLOURS[way]}"`));
      y += PANEL.line;
    }
    y += PANEL.between;
  }
  const bottom = y - PANEL.between;
  const second = PANEL.left + PANEL.width + PANEL.gap;
  const [width, height] = [second + PANEL.width + 30, bottom + 28];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(
      16,
      22,
      "A running guest moved to another node: each dot a move, each line a median (logarithmic)",
      'font-size="14" font-weight="bold"',
    ),
    ...labels,
    ...(lines.length === 0
      ? []
      : [panel("longest silence", PANEL.left, lines, silence, bottom), panel("total", second, lines, total, bottom)]),
    "</svg>",
    "",
  ].join("\n");
};
