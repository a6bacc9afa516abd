/**
 * The last minutes as the gateway sees them: what the network was thought to carry, what was sent, every decision with its reason, and
 * where a frame's time goes.
 *
 * @module
 */
import { drawing, element, setText } from './elements.js';
import { bitrateText, msText, percentText } from './stats.js';
import { decisionTrend, decisionWords, inOrder } from './words.js';

/** @typedef {import('./viewer.js').Quality} Quality */

/** How much time the graph shows, how long a silence is a gap in it, in milliseconds; how many decisions are listed. */
const span = 180_000;
const gap = 3_500;
const listed = 50;

/** The room above a plot for its scale's end, in em. */
const head = 1.25;
/** The plots from top to bottom: their heights in em, and the smallest value that a scale ends with. */
const plots = [
  {
    height: 6,
    least: 100_000,
    text: bitrateText,
    curves: [{ key: 'sent', name: 'Sent', form: 'area' }, { key: 'target', name: 'Target', form: 'step' }, { key: 'estimate', name: 'Estimate', form: 'dashed' }],
  },
  { height: 2.75, least: 20, text: msText, curves: [{ key: 'queue', name: 'Queue', form: 'area' }, { key: 'roundTrip', name: 'Round trip', form: 'line' }] },
  { height: 1.75, least: 0.01, text: percentText, curves: [{ key: 'loss', name: 'Loss', form: 'bars' }] },
];
const curves = plots.flatMap(({ curves, text }) => curves.map((curve) => ({ ...curve, text })));

/** Marks of decisions, in a box of 10: their shapes tell them apart without colours. */
const marks = {
  up: 'M5 1 9.5 9H.5Z',
  down: 'M5 9 .5 1h9Z',
  pause: 'M1.5 1h2.5v8H1.5ZM6 1h2.5v8H6Z',
  resume: 'M2 .5 9.5 5 2 9.5Z',
  change: 'M5 .5 9.5 5 5 9.5.5 5Z',
};

/** What `quality` messages tell, drawn. It is hidden until the first of them. */
export class QualityView {
  /** @type {Quality[]} in the order of time */
  #points = [];
  /** @type {import('./viewer.js').Decision[]} newest first */
  #decisions = [];
  /** When the last message came, on the clock of performance.now(). */
  #heardAt = 0;
  /** The time that is looked at, in Unix milliseconds; null: now. @type {number?} */
  #cursor = null;
  /** Names of the renditions, best first. @type {string[]} */
  #ladder = [];

  constructor() {
    this.graph = drawing('svg', {
      class: 'graph', role: 'slider', tabindex: 0, 'aria-label': 'Point in the last 3 minutes', 'aria-valuemin': -span / 1000, 'aria-valuemax': 0, 'aria-valuenow': 0,
    });
    this.moment = element('span', { class: 'moment' });
    this.values = new Map();
    const legend = element('dl', { class: 'legend' });
    for (const { key, name, form } of curves) {
      const value = element('dd', {}, '–');
      this.values.set(key, value);
      legend.append(element('div', {}, element('dt', {}, drawing('svg', { class: `key ${key}`, viewBox: '0 0 20 10', 'aria-hidden': 'true' }, sample(form)), name), value));
    }
    this.decisions = element('ol', { class: 'decisions', tabindex: '0', 'aria-label': 'Decisions, newest first' });
    this.none = element('p', { class: 'none' }, 'None so far.');
    this.stages = element('tbody');
    const heads = ['Stage', 'p50', 'p95', 'max', ''].map((text) => (text ? element('th', { scope: 'col' }, text) : element('td', { 'aria-hidden': 'true' })));
    this.latency = element('div', { hidden: '' },
      element('h2', {}, 'Latency', element('span', { class: 'moment' }, 'milliseconds')),
      element('table', {}, element('thead', {}, element('tr', {}, ...heads)), this.stages));
    this.element = element('div', { class: 'quality-view', hidden: '' },
      element('h2', {}, 'Network', this.moment), legend, this.graph, element('h2', {}, 'Decisions'), this.none, this.decisions, this.latency);

    this.graph.addEventListener('pointermove', (event) => this.#look(this.#timeAt(event.clientX)));
    this.graph.addEventListener('pointerleave', () => this.#look(null));
    this.graph.addEventListener('blur', () => this.#look(null));
    this.graph.addEventListener('keydown', (event) => this.#step(event));
    this.decisions.addEventListener('pointerover', (event) => this.#look(Number(event.target.closest('li')?.dataset.at) || null));
    this.decisions.addEventListener('pointerleave', () => this.#look(null));
    new ResizeObserver(() => this.draw()).observe(this.graph);
  }

  /** @param {Quality} quality */
  add({ decisions, latency, ...point }) {
    if (!has(point, 'at')) return;
    this.#points = this.#points.filter(({ at }) => at <= point.at && at > point.at - span - gap); // none is later unless the gateway's clock was set back
    this.#points.push(point);
    this.#heardAt = performance.now();
    const known = new Set(this.#decisions.map(identity)); // a new session's first message repeats what is remembered
    const fresh = decisions.filter((decision) => has(decision, 'at') && !known.has(identity(decision)));
    this.#decisions = [...fresh.reverse(), ...this.#decisions].sort((a, b) => b.at - a.at).slice(0, listed);
    if (fresh.length) this.#list();
    if (latency) this.#fillStages(latency);
    this.element.hidden = false;
    this.draw();
  }

  /** The renditions' names, best first. @param {string[]} names */
  set ladder(names) {
    this.#ladder = names;
  }

  /** Forgets all. */
  clear() {
    this.#points = [];
    this.#decisions = [];
    this.#cursor = null;
    this.element.hidden = this.latency.hidden = true;
    this.#list();
  }

  /** Time goes on, also without a message. */
  tick() {
    if (performance.now() - this.#heardAt > gap) this.draw();
  }

  /** Draws what is known, if it is in sight. */
  draw() {
    if (!this.#points.length || !this.graph.checkVisibility()) return;
    const { width } = this.graph.getBoundingClientRect();
    const em = parseFloat(getComputedStyle(this.graph).fontSize);
    const frame = { points: this.#points, now: this.#now, width, em, x: (at) => width - ((this.#now - at) / span) * width };
    const parts = [];
    let y = 0;
    for (const [i, plot] of plots.entries()) {
      y += head * em;
      parts.push(drawPlot(plot, frame, y));
      y += plot.height * em;
      if (i) continue;
      parts.push(...drawRenditions(frame, this.#ladder, y + 0.35 * em), ...this.#drawMarks(frame, y + 1.9 * em, head * em));
      y += 3 * em;
    }
    parts.push(drawTimes(frame, y + head * em));
    const x = frame.x(this.#cursor ?? 0);
    if (x >= 0) parts.push(drawing('path', { class: 'cursor', d: `M${round(x)} ${head * em}V${y}` }));
    this.graph.replaceChildren(...parts);
    this.#read();
  }

  get #now() {
    const silence = performance.now() - this.#heardAt;
    return this.#points.at(-1).at + (silence > gap ? silence : 0);
  }

  #drawMarks({ x, em }, y, top) {
    return this.#decisions.filter(({ at }) => x(at) >= 0).flatMap((decision) => {
      const at = round(x(decision.at));
      const trend = decisionTrend(decision, this.#ladder);
      const near = this.#isNear(decision) ? ' near' : '';
      return [
        drawing('path', { class: `hair${near}`, d: `M${at} ${top}V${y}` }),
        drawing('path', { class: `mark-of ${trend}`, d: marks[trend], transform: `translate(${at - 0.45 * em} ${y}) scale(${0.09 * em})` }),
      ];
    });
  }

  // ---- a moment that is looked at

  /** @param {number?} at */
  #look(at) {
    if (at === this.#cursor || !this.#points.length) return;
    this.#cursor = at;
    const items = [...this.decisions.children];
    for (const [i, item] of items.entries()) item.classList.toggle('near', this.#isNear(this.#decisions[i]));
    const [near] = items.filter((item) => item.matches('.near'));
    if (near && !this.decisions.matches(':hover')) this.decisions.scrollTop = near.offsetTop - this.decisions.offsetTop; // only the list moves
    this.draw();
  }

  #isNear({ at }) {
    return this.#cursor !== null && Math.abs(at - this.#cursor) < 1_500;
  }

  #timeAt(clientX) {
    if (!this.#points.length) return null;
    const { left, width } = this.graph.getBoundingClientRect();
    return Math.round(this.#now - span * (1 - (clientX - left) / width));
  }

  /** @param {KeyboardEvent} event */
  #step(event) {
    if (!this.#points.length) return;
    const now = this.#now;
    const from = this.#cursor ?? now;
    const to = {
      ArrowLeft: from - 1_000, ArrowRight: from + 1_000, ArrowDown: from - 1_000, ArrowUp: from + 1_000, PageDown: from - 10_000, PageUp: from + 10_000,
      Home: now - span, End: now,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#look(to >= now ? null : Math.max(to, now - span));
    this.#speak();
  }

  /** Shows the numbers of the moment that is looked at. */
  #read() {
    const now = this.#now;
    const at = this.#cursor ?? now;
    const point = this.#points.findLast((p) => p.at <= at && at - p.at < gap) ?? {};
    for (const { key, text } of curves) setText(this.values.get(key), !has(point, key) ? '–' : text(point[key]));
    setText(this.moment, this.#cursor === null ? 'last 3 minutes' : timeText(at));
    if (!this.graph.matches(':focus')) this.#speak(); // where it is heard, only keys change it
  }

  #speak() {
    const now = this.#now;
    const at = this.#cursor ?? now;
    this.graph.setAttribute('aria-valuenow', Math.max(Math.round((at - now) / 1000), -span / 1000));
    const happened = this.#decisions.filter((decision) => this.#isNear(decision)).map((decision) => decisionWords(decision).join(': '));
    const numbers = curves.map(({ key, name }) => [name, this.values.get(key).textContent]).filter(([, text]) => text !== '–');
    this.graph.setAttribute('aria-valuetext', [this.#cursor === null ? 'Now' : timeText(at), ...numbers.map((pair) => pair.join(' ')), ...happened].join(', '));
  }

  // ---- lists

  #list() {
    this.none.hidden = this.#decisions.length > 0;
    this.decisions.hidden = !this.none.hidden;
    this.decisions.replaceChildren(...this.#decisions.map((decision) => {
      const trend = decisionTrend(decision, this.#ladder);
      const [what, why] = decisionWords(decision);
      const mark = drawing('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true' }, drawing('path', { class: `mark-of ${trend}`, d: marks[trend] }));
      const time = element('time', { datetime: new Date(decision.at).toISOString() }, timeText(decision.at));
      return element('li', { 'data-at': decision.at }, mark, time, ' ', element('b', {}, what), why && `: ${why}`);
    }));
  }

  #fillStages(latency) {
    this.latency.hidden = false;
    const whole = Math.max(...Object.values(latency).map(({ p95 }) => p95)) || 1;
    let begin = 0;
    this.stages.replaceChildren(...inOrder(latency).map(([stage, name, { p50, p95, max }]) => {
      const total = stage === 'total';
      const row = element('tr', total ? { class: 'total' } : {},
        element('th', { scope: 'row' }, name),
        ...[p50, p95, max].map((value) => element('td', {}, msText(value).slice(0, -' ms'.length))),
        element('td', { 'aria-hidden': 'true' }, drawBar(total ? 0 : begin, p50, p95, whole)));
      begin += p50;
      return row;
    }));
  }
}

const identity = ({ at, what, from, to }) => [at, what, from, to].join();
const has = (point, key) => Number.isFinite(point[key]);
const round = (value) => Math.round(value * 10) / 10;
const timeText = (at) => new Date(at).toLocaleTimeString('en-GB');

/** The next number that a scale may end with. */
function scaleEnd(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 0.999) * power;
}

/** How a curve looks, in a box of 20 by 10. */
function sample(form) {
  if (form === 'area') return drawing('path', { class: 'fill', d: 'M0 10V4L7 2 13 5 20 1V10Z' });
  if (form === 'bars') return drawing('path', { class: 'fill', d: 'M1 10V6H5V10ZM8 10V1H12V10ZM15 10V4H19V10Z' });
  return drawing('path', { class: `line ${form}`, d: form === 'step' ? 'M0 7H7V3H13V7H20' : 'M0 8 7 3 13 6 20 2' });
}

function drawPlot({ height, least, text, curves }, { points, width, em, x }, top) {
  const bottom = top + height * em;
  const most = (keys) => Math.max(0, ...points.flatMap((point) => keys.map((key) => point[key] ?? 0)));
  // a network that carries far more than is sent shall not press the rest flat
  const others = most(curves.map(({ key }) => key).filter((key) => key !== 'estimate'));
  const end = scaleEnd(Math.max(least, Math.min(most(curves.map(({ key }) => key)), others * 2.5 || Infinity)));
  const y = (value) => round(bottom - Math.min(Math.max(value, 0) / end, 1) * height * em);
  const grid = [1, height > 4 ? 0.5 : 1, 0].map((part) => `M0 ${y(end * part)}H${width}`).join('');
  const group = drawing('g', { class: 'plot' }, drawing('path', { class: 'grid', d: grid }));
  for (const { key, form } of curves) group.append(...drawCurve(points, key, form, x, y, bottom));
  group.append(drawing('text', { y: top - 0.3 * em }, text(end).replace(/\.0(?=\s)/, '')));
  return group;
}

/** One curve: a path, and a filled one below it where it is an area. */
function drawCurve(points, key, form, x, y, bottom) {
  const runs = runsOf(points, (a, b) => has(a, key) && has(b, key));
  const drawn = runs.filter(([first]) => has(first, key));
  if (form === 'bars') {
    const bars = drawn.flat().filter((point) => point[key] > 0).map((point) => `M${round(x(point.at))} ${bottom}V${y(point[key])}`);
    return [drawing('path', { class: `line bars ${key}`, d: bars.join('') })];
  }
  const course = (run) => run.map((point, i) => {
    const place = `${round(x(point.at))} ${y(point[key])}`;
    if (!i) return place;
    return form === 'step' ? `H${round(x(point.at))}V${y(point[key])}` : `L${place}`;
  }).join('');
  const line = drawing('path', { class: `line ${form} ${key}`, d: drawn.map((run) => `M${course(run)}`).join('') });
  if (form !== 'area') return [line];
  const area = drawn.map((run) => `M${round(x(run[0].at))} ${bottom}L${course(run)}V${bottom}Z`);
  return [drawing('path', { class: `fill ${key}`, d: area.join('') }), line];
}

/** Cuts the points where two neighbours don't belong together, or nothing was heard in between. */
function runsOf(points, together) {
  const runs = [];
  points.forEach((point, i) => {
    const before = points[i - 1];
    if (before && point.at - before.at < gap && together(before, point)) runs.at(-1).push(point);
    else runs.push([point]);
  });
  return runs;
}

/** Which rendition was sent, as a band. */
function drawRenditions({ points, width, em, x }, ladder, top) {
  const same = (a, b) => a.rendition === b.rendition && a.width === b.width && a.height === b.height;
  const runs = runsOf(points, same);
  return runs.flatMap((run, i) => {
    const { rendition, width: w, height: h } = run[0];
    if (!rendition) return [];
    const next = runs[i + 1]?.[0];
    const begin = Math.max(0, x(run[0].at));
    const end = next && next.at - run.at(-1).at < gap ? x(next.at) : x(run.at(-1).at);
    const room = Math.min(end, width) - begin;
    if (room <= 0) return [];
    const rank = ladder.indexOf(rendition);
    const parts = [drawing('rect', { class: `rendition ${['first', 'second'][rank] ?? 'third'}`, x: round(begin), y: top, width: round(Math.max(room - 1, 0.5)), height: 1.25 * em, rx: 0.2 * em })];
    const label = [w && h ? `${rendition}, ${w} × ${h}` : '', rendition].find((text) => text && text.length * 0.52 * em < room);
    if (label) parts.push(drawing('text', { class: 'label', x: round(begin + 0.35 * em), y: top + 0.93 * em }, label));
    return parts;
  });
}

function drawTimes({ x, now }, y) {
  return drawing('g', { class: 'times' }, ...[3, 2, 1, 0].map((minutes) => drawing('text', {
    class: ['newest', '', '', 'oldest'][minutes], x: round(x(now - minutes * 60_000)), y,
  }, minutes ? `−${minutes} min` : 'now')));
}

/** Where in a frame's way a stage lies: the median as a bar, the rest to p95 as a thin one. All in milliseconds. */
function drawBar(begin, p50, p95, whole) {
  const scale = (value) => round(Math.min((value / whole) * 100, 100));
  return drawing('svg', { class: 'bar-of-stage', viewBox: '0 0 100 10', preserveAspectRatio: 'none' },
    drawing('rect', { class: 'rest', x: scale(begin), y: 4, width: Math.min(scale(p95), 100 - scale(begin)), height: 2 }),
    drawing('rect', { class: 'median', x: scale(begin), y: 1, width: Math.max(scale(p50), 0.7), height: 8 }));
}
