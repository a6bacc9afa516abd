/**
 * Who is in the room, and what a host may do with them.
 *
 * @module
 */
import { element, setText } from './elements.js';
import { icon } from './icons.js';
import { initials } from './tiles.js';

/** How roles are called, least first. */
export const roles = { viewer: 'Viewer', publisher: 'Guest', host: 'Host', admin: 'Admin' };

/** The panel: a row for each participant, and the room's own switches below. */
export class People {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #room;

  /**
   * @param {import('./room.js').Room} room
   * @param {(question: string, detail: string, yes: string) => Promise<boolean>} confirm
   */
  constructor(room, confirm) {
    this.#room = room;
    this.list = document.getElementById('participants');
    this.none = document.getElementById('nobody');
    this.tools = document.getElementById('room-tools');
    this.lock = document.getElementById('lock');
    this.shut = document.getElementById('close-room');
    this.confirm = confirm;
    this.lock.append(icon('lock'), element('span'));
    this.shut.prepend(icon('close'));
    this.lock.onclick = () => room.lock(!room.room.locked);
    this.shut.onclick = async () => {
      if (await confirm('Close the room?', 'Everybody leaves, and nobody can come back until it is opened again.', 'Close the room')) room.closeRoom();
    };
    for (const type of ['participants', 'room', 'joined']) room.addEventListener(type, () => this.render());
  }

  render() {
    const room = this.#room;
    const { self, participants } = room;
    const order = Object.keys(roles);
    const all = [...participants.values()].sort((a, b) => (
      (b.userId === self.userId) - (a.userId === self.userId) || order.indexOf(b.role) - order.indexOf(a.role) || (a.name ?? '').localeCompare(b.name ?? '')
    ));
    for (const [id, row] of this.#rows) {
      if (participants.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    all.forEach((participant, i) => {
      const id = participant.userId;
      if (!this.#rows.has(id)) this.#rows.set(id, new Row(room, id, this.confirm));
      const row = this.#rows.get(id);
      row.show(participant);
      if (this.list.children[i] !== row.element) this.list.insertBefore(row.element, this.list.children[i] ?? null);
    });
    this.none.hidden = all.length > 0;
    this.tools.hidden = !self.can.has('moderate');
    setText(this.lock.lastChild, room.room.locked ? 'Unlock the room' : 'Lock the room');
    this.lock.setAttribute('aria-pressed', String(Boolean(room.room.locked)));
  }
}

/** One participant. */
class Row {
  #room;
  #participant = { userId: '' };

  constructor(room, id, confirm) {
    this.#room = room;
    this.face = element('span', { class: 'face', 'aria-hidden': 'true' });
    this.name = element('strong');
    this.role = element('span', { class: 'role' });
    this.marks = element('span', { class: 'marks' });
    const acts = `acts-${id}`;
    this.more = element('button', { type: 'button', class: 'round', 'aria-expanded': 'false', 'aria-controls': acts }, icon('more'));
    const act = (glyph, work) => {
      const button = element('button', { type: 'button' }, icon(glyph), element('span'));
      button.onclick = () => {
        work();
        this.open(false);
      };
      return button;
    };
    this.audio = act('microphone-off', () => room.mute(id, 'audio', !this.muted('audio')));
    this.video = act('camera-off', () => room.mute(id, 'video', !this.muted('video')));
    this.host = act('host', () => room.setRole(id, this.#participant.role === 'host' ? 'publisher' : 'host'));
    this.out = act('remove', async () => {
      if (await confirm(`Remove ${this.name.textContent}?`, 'They leave the room at once.', 'Remove')) room.remove(id);
    });
    this.out.classList.add('grave');
    this.acts = element('div', { class: 'acts', id: acts, hidden: '' }, this.audio, this.video, this.host, this.out);
    this.element = element('li', {}, element('div', { class: 'person' }, this.face, element('div', {}, this.name, this.role), this.marks, this.more), this.acts);
    this.more.onclick = () => this.open(this.acts.hidden);
  }

  muted(kind) {
    return Boolean(this.#participant.muted?.includes(kind));
  }

  open(on) {
    this.acts.hidden = !on;
    this.more.setAttribute('aria-expanded', String(on));
  }

  /** @param {import('./room.js').Participant} participant */
  show(participant) {
    this.#participant = participant;
    const { self } = this.#room;
    const own = participant.userId === self.userId;
    const name = participant.name || 'Somebody';
    setText(this.name, own ? `${name} (you)` : name);
    setText(this.role, [roles[participant.role] ?? participant.role, participant.absent ? 'connection lost' : participant.streams?.length ? 'sending' : ''].filter(Boolean).join(', '));
    setText(this.face, initials(name));
    const marks = ['audio', 'video'].filter((kind) => this.muted(kind));
    if (this.marks.dataset.kinds !== marks.join()) {
      this.marks.dataset.kinds = marks.join();
      this.marks.replaceChildren(...marks.map((kind) => element('span', { role: 'img', title: `${kind === 'audio' ? 'Microphone' : 'Camera'} muted`, 'aria-label': `${kind === 'audio' ? 'Microphone' : 'Camera'} muted` },
        icon(kind === 'audio' ? 'microphone-off' : 'camera-off'))));
    }
    this.more.hidden = own || !self.can.has('moderate');
    if (this.more.hidden) this.open(false);
    this.more.setAttribute('aria-label', `What to do with ${name}`);
    this.more.title = 'Host tools';
    setText(this.audio.lastChild, this.muted('audio') ? 'Lift the mute of the microphone' : 'Mute the microphone');
    setText(this.video.lastChild, this.muted('video') ? 'Let the picture be seen again' : 'Stop the picture');
    setText(this.host.lastChild, participant.role === 'host' ? 'Make a guest' : 'Make a host');
    this.host.hidden = participant.role === 'admin';
    setText(this.out.lastChild, 'Remove from the room');
  }
}
