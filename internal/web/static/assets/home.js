/**
 * The page of all streams: cards that follow /api/streams, with pictures of those that are live.
 *
 * @module
 */
import { api, root, signIn, takeToken } from './access.js';
import { drawing, element, setText } from './elements.js';
import { Account, Rooms } from './home-rooms.js';
import { codecName, trackTexts } from './stats.js';
import { refusedEdit, sentence, stateNames } from './words.js';

/** @typedef {import('./viewer.js').Stream} Stream */

const listEvery = 2_000;
const pictureEvery = 4_000;
/** A picture of a stream that rests is made by starting its capture once: that takes a while. */
const pictureWithin = 12_000;

const rooms = new Rooms();
const account = new Account();
const list = document.getElementById('streams');
const empty = document.getElementById('empty');
const outage = document.getElementById('outage');
const problems = document.getElementById('problems');
const summary = document.getElementById('summary');

const glyphs = {
  picture: 'M6 34V20a14 14 0 0 1 28 0v14M16 19v12l10-6z',
  gone: 'M15 10h13a4 4 0 0 1 4 4v12M29 31H8a4 4 0 0 1-4-4V14a4 4 0 0 1 2-3.4M32 18l5-3v11M5 5l30 30',
};

/** One stream's card; it stays the same element for as long as the stream is listed. */
class Card {
  /** @type {Stream} */
  #stream;
  #picture = { image: null, url: '', askedAt: -Infinity, busy: false, state: '' };

  /** @param {Stream} stream */
  constructor(stream) {
    this.#stream = stream;
    this.glyph = drawing('svg', { viewBox: '0 0 40 40', 'aria-hidden': 'true' }, drawing('path'));
    this.state = element('span', { class: 'state' });
    this.link = element('a', { href: new URL(`watch/${encodeURIComponent(stream.name)}`, root).href });
    this.reason = element('p', { class: 'reason' });
    this.edit = element('p', { class: 'edit' });
    this.numbers = element('p', { class: 'numbers' });
    this.card = element('article', {},
      element('div', { class: 'screen' }, this.glyph, this.state),
      element('div', { class: 'about' }, element('h2', {}, this.link), this.reason, this.edit, this.numbers));
    this.element = element('li', {}, this.card);
    this.show(stream);
  }

  /** @param {Stream} stream */
  show(stream) {
    this.#stream = stream;
    const { state } = stream;
    this.card.className = `card ${{ live: 'live', absent: 'fault', starting: 'wait', restarting: 'wait' }[state] ?? 'rest'}`;
    this.glyph.firstChild.setAttribute('d', state === 'absent' ? glyphs.gone : glyphs.picture);
    setText(this.state, stateNames[state] ?? state);
    setText(this.link, stream.title || stream.name);
    setText(this.reason, state === 'live' ? '' : sentence(stream.reason) || (state === 'idle' ? 'Starts when somebody watches.' : ''));
    setText(this.edit, refusedEdit(stream.name, stream.reload));
    const parts = numbers(stream);
    if (this.numbers.textContent === parts.join(' ')) return;
    this.numbers.replaceChildren(...parts.flatMap((part, i) => [...(i ? [' '] : []), element('span', {}, part)]));
  }

  /** Fetches a new picture where one can be had: of what is live again and again, of what rests once. @param {number} now */
  async refresh(now) {
    const picture = this.#picture;
    const { name, state } = this.#stream;
    const due = state === 'live' ? now - picture.askedAt >= pictureEvery : state === 'idle' && picture.state !== state && !picture.image;
    if (!due || picture.busy) return;
    Object.assign(picture, { askedAt: now, busy: true, state });
    try {
      const answer = await fetch(new URL(`api/streams/${encodeURIComponent(name)}/snapshot.jpg`, root), { cache: 'no-store', signal: AbortSignal.timeout(pictureWithin) });
      if (!answer.ok) return;
      const url = URL.createObjectURL(await answer.blob());
      const image = Object.assign(new Image(), { src: url, alt: '' });
      await image.decode(); // shown only when it is whole: no flicker
      if (picture.image) picture.image.replaceWith(image);
      else this.glyph.after(image);
      this.glyph.toggleAttribute('hidden', true);
      URL.revokeObjectURL(picture.url);
      Object.assign(picture, { image, url });
    } catch {
      // the list's own request tells whether the gateway is gone; a picture may just be missing
    } finally {
      picture.busy = false;
    }
  }

  remove() {
    this.element.remove();
    URL.revokeObjectURL(this.#picture.url);
  }
}

/** What a card says in small. @param {Stream} stream @returns {string[]} */
function numbers(stream) {
  const [video, ...further] = stream.tracks?.filter((track) => track.kind === 'video') ?? [];
  const audio = stream.tracks?.find((track) => track.kind === 'audio');
  return [
    ...(video ? trackTexts(video) : []),
    further.length && `${further.length + 1} renditions`,
    audio && codecName(audio.codec),
    stream.viewers && `${stream.viewers} watching`,
  ].filter(Boolean);
}

/** @type {Map<string, Card>} */
const cards = new Map();

/** @param {Stream[]} streams */
function show(streams) {
  const names = new Set(streams.map((stream) => stream.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.remove();
    cards.delete(name);
  }
  streams.forEach((stream, i) => {
    const card = cards.get(stream.name);
    if (card) card.show(stream);
    else cards.set(stream.name, new Card(stream));
    const { element: e } = cards.get(stream.name);
    if (list.children[i] !== e) list.insertBefore(e, list.children[i] ?? null);
  });
  const live = streams.filter((stream) => stream.state === 'live').length;
  list.classList.toggle('few', streams.length < 4);
  list.setAttribute('aria-busy', 'false');
  empty.hidden = streams.length > 0;
  setText(summary, streams.length ? `${streams.length} ${streams.length === 1 ? 'stream' : 'streams'}, ${live} live` : '');
}

/** Says what is wrong, or that nothing is. @param {string} title @param {string} [detail] */
function complain(title, detail = '') {
  if (outage.dataset.title === title) return;
  outage.dataset.title = title;
  if (!title) return outage.replaceChildren();
  outage.replaceChildren(element('strong', {}, title), detail);
}

let told = '';

/** Lists the files that the gateway found wrong, each with its findings. @param {string[]} findings "pipelines/x.yaml:3:1: key: what" */
function tell(findings) {
  if (told === JSON.stringify(findings)) return;
  told = JSON.stringify(findings);
  const files = Map.groupBy(findings, (finding) => /^(.+?\.ya?ml)(?::|$)/.exec(finding)?.[1] ?? '');
  const items = [...files].map(([file, all]) => element('li', {},
    ...(file ? [element('h3', {}, file)] : []),
    element('ul', {}, ...all.map((finding) => element('li', {}, finding)))));
  problems.querySelector('ul').replaceChildren(...items);
  problems.hidden = findings.length === 0;
}

async function update() {
  let listed;
  try {
    listed = await api('api/streams');
  } catch (err) {
    if (err.status === 401) {
      complain('');
      show([]);
      empty.hidden = true;
      account.forget();
      await signIn();
      return update();
    }
    if (err.status) complain('The gateway can’t list its streams', `It answered ${err.status}. This page keeps asking.`);
    else if (navigator.onLine) complain('The gateway doesn’t answer', `${location.host} can’t be reached. This page keeps trying.`);
    else complain('This device is offline', 'The streams come back with the network.');
    return;
  }
  complain('');
  show(listed.streams ?? []);
  tell(listed.problems ?? []);
  await account.learn();
  await rooms.update(account, listed.streams ?? []);
  const now = performance.now();
  for (const card of cards.values()) card.refresh(now); // not awaited: a slow picture doesn't hold up the list
}

let running = false;

/** Follows the list for as long as the page is seen: the next request goes out when the last was answered. */
async function follow() {
  if (running) return;
  running = true;
  while (!document.hidden) {
    const started = performance.now();
    await update();
    await new Promise((done) => setTimeout(done, Math.max(500, listEvery - (performance.now() - started))));
  }
  running = false;
}

document.addEventListener('visibilitychange', follow);
addEventListener('online', update);
takeToken().then(follow); // what is wrong with it the card to sign in says soon enough
