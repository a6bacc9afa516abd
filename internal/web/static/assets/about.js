/**
 * What an operator wants to know of the stream on the watch page: what came of the last edit of its file, and what it is made of. The
 * player in other people's pages doesn't show it.
 *
 * @module
 */
import { element, setText } from './elements.js';
import { refusedEdit } from './words.js';

const answerWithin = 5_000;

/** Two elements for a player's slots: a remark while an edit is refused, and the stream's settings below the numbers. */
export class About {
  #address;
  /** The time of the edit that the remark is about, and of the one whose remark was closed. */
  #at = 0;
  #closed = 0;

  /**
   * @param {import('./player.js').GatewayPlayer} player
   * @param {URL} address of the stream in the gateway's API
   */
  constructor(player, address) {
    this.#address = address;
    this.text = element('p');
    const close = element('button', { type: 'button', 'aria-label': 'Close this remark', title: 'Close' }, '×');
    close.onclick = () => {
      this.#closed = this.#at;
      this.remark.hidden = true;
    };
    this.remark = element('div', { class: 'refused', hidden: '' }, this.text, close);
    this.outcome = element('p');
    this.findings = element('ul');
    this.refused = element('ul');
    this.body = element('div');
    this.details = element('details', { slot: 'panel', class: 'settings' }, element('summary', {}, 'Stream'), this.outcome, this.findings, this.refused, this.body);
    this.details.ontoggle = async () => {
      await this.#read();
      if (this.details.open) this.details.scrollIntoView({ block: 'start' }); // on a phone it would open below what can be seen
    };
    // a live region is heard only if it was there before its text
    this.elements = [element('div', { slot: 'remark', role: 'status' }, this.remark), this.details];
    player.addEventListener('stream', (event) => this.#show(event.detail));
  }

  /** @param {import('./viewer.js').Stream} stream */
  #show({ name, reload, tracks }) {
    const refused = refusedEdit(name, reload);
    const edited = (reload?.at ?? 0) !== this.#at;
    this.#at = reload?.at ?? 0;
    this.remark.hidden = !refused || this.#closed === this.#at;
    setText(this.text, refused);
    setText(this.outcome, reload ? outcome(reload) : 'The file wasn’t edited since the gateway started.');
    setList(this.findings, reload?.findings ?? []);
    setList(this.refused, (tracks ?? []).filter((track) => track.refused).map((track) => `Rendition ${track.name} is refused: ${track.refused}`));
    if (edited) this.#read();
  }

  /** Fetches what the stream is made of, when somebody looks. */
  async #read() {
    if (!this.details.open) return;
    try {
      const answer = await fetch(this.#address, { cache: 'no-store', signal: AbortSignal.timeout(answerWithin) });
      if (!answer.ok) throw new Error(`it answered ${answer.status}`);
      this.body.replaceChildren(...sections(await answer.json()));
    } catch (err) {
      this.body.replaceChildren(element('p', {}, `The gateway doesn’t tell the settings: ${err.message}`));
    }
  }
}

/** @param {import('./viewer.js').Reload} reload */
function outcome({ at, ok, message }) {
  const when = new Date(at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' });
  return `Last edit, ${when}, ${ok ? 'taken' : 'refused'}: ${message}`;
}

/** The API's answer as headings and texts. */
function sections({ settings = '', tracks = [], notes = [] }) {
  // in the launch form one pipeline makes all tracks
  const launches = Map.groupBy(tracks, (track) => track.launch ?? '');
  const names = (made) => made.map(({ name, encoder }) => (encoder ? `${name} (${encoder})` : name)).join(', ');
  const parts = [['Settings', settings], ...[...launches].map(([text, made]) => [`Pipeline of ${names(made)}`, text])];
  const made = parts.filter(([, text]) => text).flatMap(([title, text]) => [
    element('h2', {}, title),
    element('pre', { tabindex: '0', 'aria-label': title }, text),
  ]);
  if (notes.length) {
    const list = element('ul');
    setList(list, notes);
    made.push(element('h2', {}, 'Notes'), list);
  }
  return made;
}

function setList(list, texts) {
  list.replaceChildren(...texts.map((text) => element('li', {}, text)));
  list.hidden = !texts.length;
}
