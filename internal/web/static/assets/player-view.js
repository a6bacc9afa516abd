/**
 * The player's elements: made once, then only shown, hidden and filled with text.
 *
 * @module
 */
import { drawing, element, setText } from './elements.js';
import { icon, setIcon } from './icons.js';
import { fillMenu } from './quality-menu.js';
import { QualityView } from './quality-view.js';
import { bitrateText, msText, percentText } from './stats.js';

function button(name, label, key) {
  return element('button', { type: 'button', class: name, 'aria-label': label, title: key ? `${label} (${key})` : label, ...(key ? { 'aria-keyshortcuts': key } : {}) }, icon(name));
}

function relabel(b, label, key) {
  b.setAttribute('aria-label', label);
  b.title = `${label} (${key})`;
}

const keys = [['m', 'Sound on or off'], ['f', 'Full screen'], ['p', 'Picture in picture'], ['q', 'Quality, where there is a choice'], ['s', 'Statistics'], ['?', 'This list']];

/** Everything that the player shows. */
export class View {
  constructor() {
    this.video = element('video', { playsinline: '', muted: '', disableremoteplayback: '', part: 'video' });
    this.still = element('canvas', { hidden: '', 'aria-hidden': 'true' });

    this.markBox = element('span', { 'aria-hidden': 'true' }, icon('busy'));
    this.markBox.firstChild.classList.add('mark');
    const ring = this.markBox.firstChild.firstChild.cloneNode();
    ring.setAttribute('d', 'M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0Z');
    ring.classList.add('ring');
    this.markBox.firstChild.append(ring);
    this.title = element('h2');
    this.detail = element('p');
    this.next = element('p', { class: 'next' });
    this.act = element('button', { type: 'button', class: 'solid', hidden: '' });
    this.notice = element('div', { class: 'notice quiet', part: 'notice' }, element('div', {}, this.markBox, this.title, this.detail, this.next, this.act));

    this.name = element('span', { class: 'name' });
    this.badge = element('span', { class: 'badge' }, 'Connecting');
    this.top = element('div', { class: 'bar top' }, element('slot', { name: 'start' }), this.name, element('span', { class: 'space' }), this.badge);

    this.mute = button('muted', 'Unmute', 'm');
    this.mute.className = 'mute';
    this.mute.append(element('span', { 'aria-hidden': 'true' }, 'Unmute'));
    this.choose = element('select', { 'aria-label': 'Quality', 'aria-keyshortcuts': 'q', title: 'Quality (q)' });
    this.chosen = element('span', { 'aria-hidden': 'true' });
    this.quality = element('div', { class: 'quality', hidden: '' }, icon('quality'), this.chosen, this.choose);
    this.statsButton = button('stats', 'Statistics', 's');
    this.pip = button('pip', 'Picture in picture', 'p');
    this.full = button('fullscreen', 'Full screen', 'f');
    this.help = button('help', 'Keys', '?');
    this.bottom = element('div', { class: 'bar bottom' }, this.mute, element('span', { class: 'space' }), this.quality, this.statsButton, this.pip, this.full, this.help);

    this.panel = new Panel();
    this.close = element('button', { type: 'button', class: 'solid' }, 'Close');
    const list = element('dl');
    for (const [key, what] of keys) list.append(element('dt', {}, element('kbd', {}, key)), element('dd', {}, what));
    this.dialog = element('dialog', { 'aria-labelledby': 'keys' }, element('h2', { id: 'keys' }, 'Keys'), list, this.close);
    this.spoken = element('div', { class: 'spoken', role: 'status', 'aria-live': 'polite' });

    this.surface = element('div', { class: 'surface', tabindex: '-1' },
      this.video, this.still, this.notice, this.top, this.panel.element, this.bottom,
      element('div', { class: 'remark' }, element('slot', { name: 'remark' })), this.dialog, this.spoken);
  }

  /**
   * Shows words over the picture or in its place; null clears them.
   *
   * @param {import('./words.js').Words?} words
   * @param {{ small?: boolean }} [form] small: a line at the top that leaves the picture alone
   */
  say(words, { small = false } = {}) {
    if (!words) {
      this.notice.classList.add('quiet');
      this.notice.inert = true;
      this.#speak(this.#said ? 'Playing' : '');
      this.#said = false;
      return;
    }
    this.#said = true;
    this.notice.inert = false;
    this.notice.className = `notice ${words.tone}${small ? ' small' : ''}${words.detail ? '' : ' soon'}`;
    setText(this.title, words.title);
    setText(this.detail, words.detail);
    setIcon(this.markBox, words.action === 'play' ? 'play' : words.tone);
    this.act.hidden = !words.action;
    setText(this.act, words.action === 'play' ? 'Play' : 'Try now');
    this.#speak(small ? words.title : `${words.title}. ${words.detail}`);
  }

  #said = false;

  /** When the next try comes, in words; not spoken, because it changes every second. @param {string} text */
  count(text) {
    setText(this.next, text);
  }

  #speak(text) {
    setText(this.spoken, text);
  }

  /** @param {string} text @param {''|'live'|'wait'|'fault'} tone */
  label(text, tone) {
    setText(this.badge, text);
    this.badge.className = `badge ${tone}`;
  }

  /** @param {boolean} muted @param {boolean} audible whether there is sound to hear @param {boolean} call whether to ask for the click */
  sound(muted, audible, call) {
    this.mute.hidden = !audible;
    setIcon(this.mute, muted ? 'muted' : 'sound');
    relabel(this.mute, muted ? 'Unmute' : 'Mute', 'm');
    this.bottom.classList.toggle('call', audible && muted && call);
  }

  /**
   * Fills the menu of renditions; it is there when there is something to choose.
   *
   * @param {import('./viewer.js').Track[]} renditions
   * @param {import('./viewer.js').Choice} choice
   */
  renditions(renditions, { rendition, selected }) {
    this.quality.hidden = renditions.length < 2;
    fillMenu(this.choose, renditions, selected, rendition);
    setText(this.chosen, selected === 'auto' ? 'Auto' : selected);
    this.panel.quality.ladder = renditions.map(({ name }) => name);
    this.panel.rendition(renditions.length > 1 ? rendition : '', selected);
  }

  /** Opens the menu of renditions, where there is one and the browser lets it be opened; else it only gets the focus. */
  openMenu() {
    if (this.quality.hidden) return;
    this.choose.focus();
    this.choose.showPicker?.();
  }

  /** @param {boolean} on */
  fullscreen(on) {
    setIcon(this.full, on ? 'window' : 'fullscreen');
    relabel(this.full, on ? 'Leave full screen' : 'Full screen', 'f');
  }
}

/** How many values a curve shows: one a second. */
const curveLength = 60;

/** The numbers, each with its last minute where a curve helps. */
class Panel {
  #rows = new Map();

  constructor() {
    this.list = element('dl', { class: 'numbers' });
    this.quality = new QualityView();
    this.element = element('section', { class: 'panel', 'aria-label': 'Statistics', hidden: '', tabindex: '0' },
      this.quality.element, element('h2', {}, 'Playback'), this.list, element('slot', { name: 'panel' }));
    for (const [key, label, curve] of [
      ['state', 'State'], ['rendition', 'Rendition'], ['codec', 'Codec'], ['size', 'Size'], ['fps', 'Frame rate', true], ['bitrate', 'Bitrate', true],
      ['roundTrip', 'Round trip', true], ['loss', 'Loss', true], ['jitterBuffer', 'Jitter buffer', true], ['decodeTime', 'Decoding', true],
      ['freezes', 'Freezes'], ['dropped', 'Dropped'], ['firstFrame', 'First frame'], ['path', 'Path'],
    ]) {
      const value = element('dd', {}, '–');
      const line = element('div', {}, element('dt', {}, label), value);
      const row = { element: line, value, values: [], line: null };
      if (curve) {
        row.line = drawing('polyline');
        const graph = drawing('svg', { viewBox: `0 0 ${curveLength - 1} 20`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, row.line);
        value.after(element('dd', { 'aria-hidden': 'true' }, graph));
      }
      this.list.append(line);
      this.#rows.set(key, row);
    }
  }

  /**
   * @param {import('./stats.js').Stats} s
   * @param {string} state
   */
  show(s, state) {
    const told = (value, text) => (value === null ? '–' : text(value));
    const set = (key, text, value) => {
      const row = this.#rows.get(key);
      setText(row.value, text);
      if (!row.line) return;
      row.values.push(value ?? 0);
      if (row.values.length > curveLength) row.values.shift();
      if (!this.element.hidden) draw(row);
    };
    set('state', state);
    set('codec', [s.codec, s.audioCodec].filter(Boolean).join(', ') || '–');
    set('size', s.width ? `${s.width} × ${s.height}` : '–');
    set('fps', s.fps === null ? '–' : `${s.fps.toFixed(s.fps < 10 ? 1 : 0)} fps`, s.fps);
    set('bitrate', told(s.bitrate, bitrateText), s.bitrate);
    set('roundTrip', told(s.roundTrip, msText), s.roundTrip);
    set('loss', told(s.loss, percentText), s.loss);
    set('jitterBuffer', told(s.jitterBuffer, msText), s.jitterBuffer);
    set('decodeTime', told(s.decodeTime, msText), s.decodeTime);
    set('freezes', s.freezes ? `${s.freezes}, ${(s.frozen / 1000).toFixed(1)} s in all` : '0');
    set('dropped', `${s.framesDropped} frames, ${s.packetsLost} packets`);
    set('firstFrame', s.firstFrame === null ? '–' : `${Math.round(s.firstFrame)} ms`);
    set('path', s.local ? `${s.local} to ${s.remote}, ${s.transport.toUpperCase()}` : '–');
  }

  /** @param {string} playing name, or empty where there is no choice @param {string} selected */
  rendition(playing, selected) {
    const { element, value } = this.#rows.get('rendition');
    element.hidden = !playing;
    setText(value, selected === playing ? playing : `${playing}, ${selected === 'auto' ? 'chosen by itself' : `${selected} is asked for`}`);
  }

  /** Begins the curves anew. */
  clear() {
    this.quality.clear();
    for (const row of this.#rows.values()) row.values = [];
  }
}

function draw({ line, values }) {
  const top = Math.max(...values) || 1;
  const offset = curveLength - values.length;
  line.setAttribute('points', values.map((v, i) => `${offset + i},${(19 - (v / top) * 18).toFixed(1)}`).join(' '));
}
