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
   * @param {(who: string, here: string) => Promise<string>} elsewhere asks for another room
   */
  constructor(room, confirm, elsewhere) {
    this.#room = room;
    this.list = document.getElementById('participants');
    this.none = document.getElementById('nobody');
    this.tools = document.getElementById('room-tools');
    this.lock = document.getElementById('lock');
    this.shut = document.getElementById('close-room');
    this.ask = { confirm, elsewhere };
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
      if (!this.#rows.has(id)) this.#rows.set(id, new Row(room, id, this.ask));
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

/** Makes another one host and oneself a guest: not before he is one, so that a refusal leaves all as it was. @param {import('./room.js').Room} room @param {string} id */
function handOver(room, id) {
  const over = new AbortController();
  const follow = () => {
    const role = room.participants.get(id)?.role;
    if (role === 'host') room.setRole(room.self.userId, 'publisher');
    if (role === 'host' || !role) over.abort();
  };
  room.addEventListener('participants', follow, { signal: over.signal });
  for (const type of ['error', 'joined', 'closed']) room.addEventListener(type, () => over.abort(), { signal: over.signal });
  if (room.participants.get(id)?.role === 'host') follow();
  else room.setRole(id, 'host');
}

/** One participant. */
class Row {
  #room;
  #participant = { userId: '' };

  constructor(room, id, { confirm, elsewhere }) {
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
    this.hand = act('host', async () => {
      if (await confirm(`Hand the room over to ${this.name.textContent}?`, 'They become its host, and you go on as a guest.', 'Hand over')) handOver(room, id);
    });
    this.down = act('host', async () => {
      if (await confirm('Step down as a host?', 'You go on as a guest. Only another host makes you one again.', 'Step down')) room.setRole(id, 'publisher');
    });
    this.to = act('move', async () => {
      const there = await elsewhere(this.name.textContent, room.room.roomId);
      if (there) room.move(id, there);
    });
    this.out = act('remove', async () => {
      if (await confirm(`Remove ${this.name.textContent}?`, 'They leave the room at once.', 'Remove')) room.remove(id);
    });
    this.out.classList.add('grave');
    this.acts = element('div', { class: 'acts', id: acts, hidden: '' }, this.audio, this.video, this.host, this.hand, this.down, this.to, this.out);
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
    this.more.hidden = !self.can.has('moderate') || (own && self.role !== 'host');
    if (this.more.hidden) this.open(false);
    this.more.setAttribute('aria-label', own ? 'What to do with your own part' : `What to do with ${name}`);
    for (const button of [this.audio, this.video, this.to, this.out]) button.hidden = own;
    this.down.hidden = !own;
    this.hand.hidden = own || self.role !== 'host' || participant.role === 'admin';
    this.more.title = 'Host tools';
    setText(this.audio.lastChild, this.muted('audio') ? 'Lift the mute of the microphone' : 'Mute the microphone');
    setText(this.video.lastChild, this.muted('video') ? 'Let the picture be seen again' : 'Stop the picture');
    setText(this.host.lastChild, participant.role === 'host' ? 'Make a guest' : 'Make a host');
    this.host.hidden = own || participant.role === 'admin';
    setText(this.hand.lastChild, 'Hand the room over');
    setText(this.down.lastChild, 'Step down');
    setText(this.to.lastChild, 'Move to another room');
    setText(this.out.lastChild, 'Remove from the room');
  }
}
