/**
 * What people in the room write to each other, over its data channels.
 *
 * @module
 */
import { element, setText } from './elements.js';
import { icon } from './icons.js';
import { initials } from './tiles.js';

/** Characters of one message. */
const longest = 2000;
/** Messages that are kept. */
const most = 300;

/**
 * The panel: what was said since this page came, and a line to say something.
 *
 * Events: `said` (detail: {name, text}: somebody else has said something), `change` (whether one may, or what is unread).
 */
export class Chat extends EventTarget {
  #room;
  #last = { userId: '', at: 0 };
  /** How many messages came while the panel was closed. */
  unread = 0;

  /** @param {import('./room.js').Room} room */
  constructor(room) {
    super();
    this.#room = room;
    this.panel = document.getElementById('chat');
    this.list = document.getElementById('said');
    this.none = document.getElementById('silence');
    this.form = this.panel.querySelector('form');
    this.line = document.getElementById('line');
    this.line.maxLength = longest;
    this.send = this.form.querySelector('button');
    this.send.append(icon('send'));
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.#say(this.line.value.trim());
    };
    this.line.onkeydown = (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.form.requestSubmit();
    };
    for (const type of ['joined', 'participants']) room.addEventListener(type, () => this.#follow());
    for (const type of ['open', 'close']) room.data.addEventListener(type, () => this.#render());
    room.data.addEventListener('message', ({ detail: { userId, data } }) => {
      const said = data?.chat?.text;
      if (typeof said === 'string' && said.trim()) this.#show(userId, this.#name(userId), said.slice(0, longest));
    });
    this.#render();
  }

  /** Whether this participant may talk. */
  get allowed() {
    return this.#room.self.can.has('relay');
  }

  /** The panel was opened: all is read. */
  opened() {
    this.unread = 0;
    this.list.scrollTop = this.list.scrollHeight;
    this.line.focus();
    this.dispatchEvent(new Event('change'));
  }

  #name(userId) {
    return this.#room.participants.get(userId)?.name || 'Somebody';
  }

  #follow() {
    if (this.allowed) this.#room.data.open();
    this.#render();
    this.dispatchEvent(new Event('change'));
  }

  #render() {
    this.send.disabled = !this.#room.data.ready;
    this.line.placeholder = this.#room.data.ready ? 'Write to all' : 'Connecting';
  }

  #say(words) {
    if (!words || !this.#room.data.send({ chat: { text: words } })) return;
    this.line.value = '';
    this.#show(this.#room.self.userId, 'You', words);
  }

  #show(userId, name, words) {
    const follows = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 60;
    const own = userId === this.#room.self.userId;
    const now = new Date();
    const goesOn = this.#last.userId === userId && now - this.#last.at < 120_000;
    this.#last = { userId, at: now };
    const said = element('p', {}, words);
    const head = goesOn ? [] : [element('div', { class: 'by' }, element('span', { class: 'face', 'aria-hidden': 'true' }, initials(own ? this.#room.self.name || name : name)), element('strong', {}, name),
      element('time', { datetime: now.toISOString() }, now.toLocaleTimeString([], { timeStyle: 'short' })))];
    this.list.append(element('li', { class: own ? 'own' : '' }, ...head, said));
    while (this.list.children.length > most) this.list.firstChild.remove();
    this.none.hidden = true;
    if (follows || own) this.list.scrollTop = this.list.scrollHeight;
    if (own || !this.panel.hidden) return;
    this.unread++;
    this.dispatchEvent(new Event('change'));
    this.dispatchEvent(new CustomEvent('said', { detail: { name, text: words } }));
  }

  /** Nobody who was moved to another room takes along what was said. */
  clear() {
    this.list.replaceChildren();
    this.none.hidden = false;
    this.unread = 0;
    this.#last = { userId: '', at: 0 };
    setText(this.line, '');
    this.dispatchEvent(new Event('change'));
  }
}
