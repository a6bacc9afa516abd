/**
 * The room page's cards: a link to pass on, and a question before something that can't be taken back.
 *
 * @module
 */
import { api, root } from './access.js';
import { element, setText } from './elements.js';
import { icon } from './icons.js';
import { roles } from './room-people.js';

/** How long links last, in seconds. */
const lasting = [[3_600, 'an hour'], [86_400, 'a day'], [604_800, 'a week']];

function show(dialog) {
  dialog.onclose = () => dialog.remove();
  dialog.onclick = (event) => event.target === dialog && dialog.close(); // outside of it
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * Asks before something is done.
 *
 * @param {string} question
 * @param {string} detail
 * @param {string} yes what the button says
 * @returns {Promise<boolean>}
 */
export function confirmed(question, detail, yes) {
  const sure = element('button', { type: 'button', class: 'button grave' }, yes);
  const no = element('button', { type: 'button', class: 'quiet', autofocus: '' }, 'Not now');
  const dialog = element('dialog', { class: 'sheet', role: 'alertdialog', 'aria-labelledby': 'question', 'aria-describedby': 'question-detail' },
    element('h2', { id: 'question' }, question), element('p', { id: 'question-detail' }, detail), element('div', { class: 'answers' }, no, sure));
  return new Promise((resolve) => {
    show(dialog);
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'));
    sure.onclick = () => dialog.close('yes');
    no.onclick = () => dialog.close();
  });
}

/**
 * Asks into which room somebody is to go.
 *
 * @param {string} who
 * @param {string} here the room that it isn't
 * @returns {Promise<string>} the room's name; empty: none
 */
export async function otherRoom(who, here) {
  const listed = (await api('api/rooms').catch(() => null))?.rooms ?? [];
  const others = listed.filter(({ roomId, state }) => roomId !== here && state !== 'closed');
  const rooms = element('datalist', { id: 'move-rooms' }, ...others.map(({ roomId, title }) => element('option', { value: roomId }, title || roomId)));
  const to = element('input', { id: 'move-to', list: rooms.id, maxlength: '128', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false' });
  const no = element('button', { type: 'button', class: 'quiet' }, 'Not now');
  const form = element('form', { novalidate: '' }, element('label', { for: to.id }, element('span', {}, 'Room'), to), rooms,
    element('div', { class: 'answers' }, no, element('button', { type: 'submit', class: 'button' }, 'Move')));
  const dialog = element('dialog', { class: 'sheet move', 'aria-labelledby': 'move-title' },
    element('h2', { id: 'move-title' }, `Move ${who}`), element('p', {}, 'They go there at once, with what they send. You have to be a host there too.'), form);
  return new Promise((resolve) => {
    show(dialog);
    dialog.addEventListener('close', () => resolve(dialog.returnValue));
    no.onclick = () => dialog.close('');
    form.onsubmit = (event) => {
      event.preventDefault();
      if (to.value.trim()) dialog.close(to.value.trim());
    };
  });
}

/**
 * Shows links into a room: its address for those who have access themselves, and where this participant may give access away, links that
 * let somebody in once.
 *
 * @param {import('./room.js').Room} room
 */
export function share(room) {
  const address = new URL(`room/${encodeURIComponent(room.room.roomId)}`, root).href;
  const out = element('input', { id: 'share-address', readonly: '', value: address });
  const copy = element('button', { type: 'button', class: 'button' }, icon('copy'), element('span', {}, 'Copy'));
  const note = element('p', { class: 'note', role: 'status' }, 'For people who can sign in to this gateway.');
  const close = element('button', { type: 'button', class: 'quiet' }, 'Done');
  const order = Object.keys(roles);
  const mine = Math.max(0, order.indexOf(room.self.role));
  const role = element('select', { id: 'share-role' }, ...order.slice(0, Math.min(mine, 2) + 1).map((name) => (
    element('option', { value: name }, { viewer: 'watch', publisher: 'take part', host: 'take part as a host' }[name])
  )));
  role.value = mine >= 1 ? 'publisher' : 'viewer';
  const life = element('select', { id: 'share-life' }, ...lasting.map(([seconds, name]) => element('option', { value: String(seconds) }, name)));
  life.value = '86400';
  const make = element('button', { type: 'button', class: 'quiet' }, 'Make a link for somebody');
  const invite = element('div', { class: 'fields two', hidden: '' },
    element('label', { for: role.id }, element('span', {}, 'May'), role), element('label', { for: life.id }, element('span', {}, 'Within'), life), make);
  api('api/session').then(({ open }) => {
    invite.hidden = open || !room.self.can.has('moderate');
    if (open) setText(note, 'Whoever reaches this gateway comes in by it.');
  }, () => {});
  const dialog = element('dialog', { class: 'sheet share', 'aria-labelledby': 'share-title' },
    element('h2', { id: 'share-title' }, 'Share this room'),
    element('label', { for: out.id, class: 'spoken' }, 'Address of the room'), element('div', { class: 'copy' }, out, copy), note, invite, close);
  const taken = async () => {
    out.select();
    try {
      await navigator.clipboard.writeText(out.value);
    } catch {
      document.execCommand('copy'); // pages without HTTPS have no clipboard
    }
    setText(copy.lastChild, 'Copied');
    setTimeout(() => setText(copy.lastChild, 'Copy'), 2_000);
  };
  copy.onclick = taken;
  out.onfocus = () => out.select();
  close.onclick = () => dialog.close();
  make.onclick = async () => {
    make.disabled = true;
    try {
      const made = await api('api/shares', { method: 'POST', body: { room: room.room.roomId, role: role.value, expiresIn: Number(life.value) } });
      out.value = new URL(made.path.replace(/^\//, ''), root).href;
      setText(note, `It lets one person in, once, within ${life.selectedOptions[0].text}. Whoever has it can use it.`);
      await taken();
    } catch (err) {
      setText(note, err.status === 404 || err.status === 409 ? 'This gateway makes no such links: whoever reaches it comes in by the address.' : err.message);
    } finally {
      make.disabled = false;
    }
  };
  show(dialog);
}
