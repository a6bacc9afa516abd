/**
 * The rooms on the page of all streams, and who is looking at it.
 *
 * @module
 */
import { api, root, signOut } from './access.js';
import { element, setText } from './elements.js';

/** How a room's state is called. */
const states = { idle: 'Empty', active: 'Open', closed: 'Closed' };

/** Rooms as /api/rooms lists them. @typedef {{ roomId: string, title: string, state: string, locked: boolean, made: boolean, streams: string[], participants: number }} Summary */

/** The rooms that are more than one stream: those of several, those that somebody opened, those where somebody sends. */
export class Rooms {
  #told = '';
  /** Whether this gateway lists rooms. */
  #listed = true;

  constructor() {
    this.section = document.getElementById('rooms');
    this.list = this.section.querySelector('ul');
    this.form = document.getElementById('open-room');
    this.form.onsubmit = (event) => {
      event.preventDefault();
      const name = this.form.querySelector('input').value.trim();
      const fits = /^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$/.test(name);
      setText(this.form.querySelector('p'), fits ? '' : 'A name is letters, digits, - and _, and begins with a letter or digit.');
      if (fits) location.assign(new URL(`room/${encodeURIComponent(name)}`, root));
    };
  }

  /**
   * @param {Account} account
   * @param {import('./viewer.js').Stream[]} streams
   */
  async update(account, streams) {
    if (!this.#listed) return;
    /** @type {Summary[]} */
    let all = [];
    try {
      all = (await api('api/rooms')).rooms ?? [];
    } catch (err) {
      this.#listed = err.status !== 404;
      return;
    }
    const alone = new Set(streams.map(({ name }) => name));
    const shown = all.filter((room) => room.made || !alone.has(room.roomId) || room.streams.length > 1);
    this.form.hidden = !account.mayOpen;
    this.section.hidden = !shown.length && this.form.hidden;
    if (this.#told === JSON.stringify(shown)) return;
    this.#told = JSON.stringify(shown);
    this.list.replaceChildren(...shown.map((room) => {
      const link = element('a', { href: new URL(`room/${encodeURIComponent(room.roomId)}`, root).href }, room.title || room.roomId);
      const about = [
        room.locked ? 'Locked' : states[room.state] ?? room.state,
        room.participants && `${room.participants} ${room.participants === 1 ? 'person' : 'people'}`,
        room.streams.length && `${room.streams.length} ${room.streams.length === 1 ? 'stream' : 'streams'}`,
      ].filter(Boolean);
      return element('li', { class: `card room-card ${room.state === 'active' ? 'live' : 'rest'}` },
        element('div', { class: 'about' }, element('h3', {}, link), element('p', {}, about.join(', '))));
    }));
  }
}

/** Who is looking. */
export class Account {
  #known = false;
  /** Whether rooms may be opened by whoever looks. */
  mayOpen = false;

  constructor() {
    this.element = document.getElementById('account');
    this.element.querySelector('button').onclick = async () => {
      await signOut();
      location.reload();
    };
  }

  /** Asks the gateway, once. */
  async learn() {
    if (this.#known) return;
    this.#known = true;
    try {
      const { name = '', subject = '', role = '', create = false, can = [], rooms = [], open = false } = await api('api/session');
      this.mayOpen = create && can.includes('publish') && rooms.some((pattern) => /[*?[]/.test(pattern)); // a link makes its own room only
      this.element.hidden = open;
      setText(this.element.firstElementChild, name || subject || role);
    } catch {
      this.mayOpen = false; // a gateway that tells nothing of it is open to all
    }
  }

  /** Nobody is signed in any more. */
  forget() {
    this.#known = false;
    this.element.hidden = true;
  }
}
