/**
 * The tiles of a room: one for each stream, as large as fits, or one large and the others beside it.
 *
 * @module
 */
import { element, setText } from './elements.js';
import { icon, setIcon } from './icons.js';
import { fillMenu } from './quality-menu.js';
import { Sight } from './sight.js';

const gap = 12;
const ratio = 16 / 9;
/** Smaller than this no tile gets: the list scrolls instead. CSS pixels. */
const narrowest = 132;
const narrowestBeside = 84;
/** How long frames may be missing before the tile says so. */
const stillAfter = 3_000;

/** @typedef {{ left: number, top: number, width: number, height: number }} Box */

/**
 * The largest boxes of one size in a space, row by row, the last row in the middle.
 *
 * @param {number} count
 * @param {number} width
 * @param {number} height of the space: more is taken where boxes would be too small
 * @param {number} [least] how wide they are at least
 * @returns {Box[]}
 */
export function pack(count, width, height, least = narrowest) {
  let best = { columns: 1, wide: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const wide = Math.min((width - (columns - 1) * gap) / columns, ((height - (rows - 1) * gap) / rows) * ratio);
    if (wide > best.wide) best = { columns, wide };
  }
  if (best.wide < least) {
    const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
    best = { columns: Math.min(columns, count), wide: Math.min((width - (columns - 1) * gap) / columns, width) };
  }
  const { columns, wide } = best;
  const high = wide / ratio;
  const rows = Math.ceil(count / columns);
  const top = Math.max(0, (height - rows * high - (rows - 1) * gap) / 2);
  return Array.from({ length: count }, (_, i) => {
    const row = Math.floor(i / columns);
    const inRow = row === rows - 1 ? count - row * columns : columns;
    const left = (width - inRow * wide - (inRow - 1) * gap) / 2;
    return { left: left + (i % columns) * (wide + gap), top: top + row * (high + gap), width: wide, height: high };
  });
}

/**
 * The same with one box as large as can be, and the others in a strip on its right, or below it in a space that is higher than wide.
 *
 * @param {number} count
 * @param {number} large its index; -1: none
 * @param {number} width
 * @param {number} height
 * @returns {Box[]}
 */
export function arrange(count, large, width, height) {
  if (large < 0 || count < 2) return pack(count, width, height);
  const beside = width > height * 1.2;
  const strip = beside ? Math.max(narrowest, Math.min(width * 0.22, 420)) : Math.max(84, height * 0.2);
  const boxes = beside ? pack(count - 1, strip, height, narrowestBeside) : pack(count - 1, width, strip, narrowestBeside);
  const [main] = beside ? pack(1, width - strip - gap, height) : pack(1, width, height - strip - gap);
  for (const box of boxes) {
    if (beside) box.left += width - strip;
    else box.top += height - strip;
  }
  boxes.splice(large, 0, main);
  return boxes;
}

/** The first letters of a name. @param {string} name */
export function initials(name) {
  const words = name.trim().split(/[\s_-]+/).filter(Boolean);
  return (words.length > 1 ? words[0][0] + words.at(-1)[0] : [...(words[0] ?? '?')].slice(0, 2).join('')).toUpperCase();
}

/** One stream's picture, name and what there is to say about it. */
export class Tile {
  #moved = performance.now();
  #frames = 0;
  #said = { title: '', detail: '' };
  #paused = false;

  /**
   * @param {string} key
   * @param {object} options
   * @param {boolean} [options.own] this participant's own picture: never heard
   * @param {boolean} [options.mirrored] shown as in a mirror
   * @param {(sight: import('./viewer.js').Sight) => void} [options.see] is told how much of it is seen
   * @param {() => void} options.enlarge is called for a click
   * @param {(rendition: string) => void} [options.choose] is called for a rendition, a name or "auto"
   */
  constructor(key, { own = false, mirrored = false, see, enlarge, choose }) {
    this.key = key;
    this.own = own;
    this.video = element('video', { playsinline: '', disableremoteplayback: '', tabindex: '-1' });
    this.video.muted = own;
    this.video.onpause = () => this.video.srcObject?.active && !document.hidden && this.play();
    this.face = element('span', { class: 'face', 'aria-hidden': 'true' });
    this.title = element('strong');
    this.detail = element('span');
    this.said = element('div', { class: 'said' }, this.face, this.title, this.detail);
    this.quiet = element('span', { class: 'silent', role: 'img', 'aria-label': 'Microphone off', title: 'Microphone off', hidden: '' }, icon('microphone-off'));
    this.name = element('span');
    this.size = element('button', { type: 'button', class: 'enlarge' }, icon('enlarge'));
    this.full = element('button', { type: 'button', class: 'full' }, icon('fullscreen'));
    this.menu = element('select', { title: 'Quality' });
    this.menu.onchange = () => choose?.(this.menu.value);
    this.quality = element('span', { class: 'choose', hidden: '' }, icon('quality'), this.menu);
    this.element = element('li', { class: `tile${mirrored ? ' mirrored' : ''}` },
      this.video, this.said, element('div', { class: 'caption' }, this.quiet, this.name), element('div', { class: 'acts' }, this.quality, this.size, this.full));
    this.size.onclick = enlarge;
    this.video.onclick = this.said.onclick = enlarge;
    this.full.onclick = () => this.fullscreen();
    if (see) this.sight = new Sight(this.video, see);
    this.sight?.start();
    this.#follow();
  }

  /** How many frames were shown. */
  get frames() {
    return this.#frames;
  }

  /** Shows media in it. @param {MediaStream} media */
  attach(media) {
    this.#moved = performance.now();
    if (this.video.srcObject !== media) this.video.srcObject = media;
    if (this.sight) this.sight.audible = !this.own && media.getAudioTracks().length > 0;
    this.play();
  }

  /** Plays, without its sound where a browser wants a click first, which `blocked` is told. */
  async play() {
    try {
      await this.video.play();
      this.blocked?.(this.video.muted && !this.own);
    } catch (err) {
      if (err.name !== 'NotAllowedError' || this.video.muted) return;
      this.video.muted = true;
      await this.play();
    }
  }

  /**
   * @param {{ name: string, title?: string, detail?: string, silent?: boolean, paused?: boolean }} shown title and detail: said in the
   *   picture's place; paused: there is no picture, and that is no fault
   */
  show({ name, title = '', detail = '', silent = false, paused = false }) {
    this.label = name;
    setText(this.name, name);
    setText(this.face, initials(name));
    this.quiet.hidden = !silent;
    this.#said = { title, detail };
    this.#paused = paused;
    this.full.setAttribute('aria-label', `${name} in full screen`);
    this.full.title = 'Full screen';
    this.enlarged(this.element.matches('.large'));
    this.render();
  }

  /**
   * The menu of renditions, where there is a choice.
   *
   * @param {import('./viewer.js').Track[]} renditions best first
   * @param {string} [selected] a name, or "auto"
   */
  renditions(renditions, selected = 'auto') {
    this.quality.hidden = renditions.length < 2;
    fillMenu(this.menu, renditions, selected);
    this.menu.setAttribute('aria-label', `Quality of ${this.label ?? ''}`);
  }

  /** @param {boolean} large */
  enlarged(large) {
    this.element.classList.toggle('large', large);
    setIcon(this.size, large ? 'reduce' : 'enlarge');
    this.size.title = large ? 'As small as the others' : 'Enlarge';
    this.size.setAttribute('aria-label', `${large ? 'Reduce' : 'Enlarge'} ${this.label ?? ''}`);
    this.size.setAttribute('aria-pressed', String(large));
  }

  /** Whether frames come, and what is said when they don't. */
  render() {
    const video = this.video.srcObject?.getVideoTracks().some((track) => track.readyState === 'live');
    const away = document.hidden || this.sight?.visible === false; // then none may be sent
    if (away) this.#moved = performance.now();
    const running = this.#frames > 0 && performance.now() - this.#moved < stillAfter;
    const pictured = Boolean(video) && running && !this.#paused;
    this.element.classList.toggle('pictured', pictured);
    const waits = !this.#said.title && !this.#paused && Boolean(this.video.srcObject ? video : !this.own);
    setText(this.title, this.#said.title || (waits && !pictured ? (this.#frames ? 'No new frames' : 'Connecting') : ''));
    setText(this.detail, this.#said.detail);
  }

  /** @param {Box} box */
  place({ left, top, width, height }) {
    Object.assign(this.element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    this.element.classList.toggle('small', width < 240);
  }

  /** Shows it on the whole screen, or ends that. */
  async fullscreen() {
    try {
      if (this.element.matches(':fullscreen')) await document.exitFullscreen();
      else if (this.element.requestFullscreen) await this.element.requestFullscreen();
      else this.video.webkitEnterFullscreen?.(); // iPhones know it for videos only
    } catch (err) {
      console.warn('gateway:', err.message);
    }
  }

  remove() {
    this.sight?.stop();
    this.video.srcObject = null;
    this.element.remove();
  }

  #follow() {
    const frame = () => {
      const first = !this.element.matches('.pictured');
      this.#frames++;
      this.#moved = performance.now();
      if (first) this.render();
      this.video.requestVideoFrameCallback(frame);
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(frame);
    else this.video.ontimeupdate = () => {
      this.#frames++;
      this.#moved = performance.now();
    };
  }
}

/** The tiles together. */
export class Tiles {
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  #large = '';

  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    new ResizeObserver(() => this.arrange()).observe(list);
    setInterval(() => this.#tiles.forEach((tile) => tile.render()), 1_000);
  }

  /** @returns {number} */
  get count() {
    return this.#tiles.size;
  }

  /** @param {string} key @returns {Tile|undefined} */
  get(key) {
    return this.#tiles.get(key);
  }

  /** Every tile. @returns {Tile[]} */
  get all() {
    return [...this.#tiles.values()];
  }

  /**
   * Makes the tiles those of the keys, in that order; a tile stays the same for as long as its key is there.
   *
   * @param {string[]} keys
   * @param {(key: string) => Tile} make
   */
  set(keys, make) {
    for (const [key, tile] of this.#tiles) {
      if (keys.includes(key)) continue;
      tile.remove();
      this.#tiles.delete(key);
    }
    keys.forEach((key, i) => {
      if (!this.#tiles.has(key)) this.#tiles.set(key, make(key));
      const { element: e } = this.#tiles.get(key);
      if (this.list.children[i] !== e) this.list.insertBefore(e, this.list.children[i] ?? null);
    });
    if (!keys.includes(this.#large)) this.#large = '';
    this.#keys = keys;
    this.arrange();
  }

  #keys = [];

  /** Enlarges a tile, or reduces it if it is large. @param {string} key empty: none */
  enlarge(key) {
    this.#large = this.#large === key ? '' : key;
    this.arrange();
  }

  /** Puts every tile where it belongs. */
  arrange() {
    const { clientWidth: width, clientHeight: height } = this.list;
    if (!width || !height) return;
    const boxes = arrange(this.#keys.length, this.#keys.indexOf(this.#large), width, height);
    this.#keys.forEach((key, i) => {
      const tile = this.#tiles.get(key);
      tile.place(boxes[i]);
      tile.enlarged(key === this.#large);
    });
  }
}
