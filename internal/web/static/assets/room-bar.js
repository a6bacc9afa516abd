/**
 * The bar of the room page: camera, microphone, screen, which devices, and leaving.
 *
 * @module
 */
import { element, setText } from './elements.js';
import { icon, setIcon } from './icons.js';
import { captureCamera, captureScreen, captureWords, devices } from './capture.js';

/** Where the devices that were chosen last are remembered. */
const chosen = { video: 'gateway.camera', audio: 'gateway.microphone' };

/** What a browser remembers for this page, where it lets a page do so. */
export const memory = {
  get(key, store = localStorage) {
    try {
      return store.getItem(key) ?? '';
    } catch {
      return '';
    }
  },
  set(key, value, store = localStorage) {
    try {
      store.setItem(key, value);
    } catch {
      // then it is asked again
    }
  },
};

function button(name, glyph, key) {
  const b = element('button', { type: 'button', class: name, ...(key ? { 'aria-keyshortcuts': key } : {}) }, icon(glyph), element('span'));
  b.dataset.key = key ?? '';
  return b;
}

function label(b, text, title = text) {
  setText(b.lastChild, text);
  b.title = b.dataset.key ? `${title} (${b.dataset.key})` : title; // its description, where there is room for the text
}

/**
 * The bar.
 *
 * Events: `people`, `chat`, `share`, `leave`, `sound` (the buttons of those names), `said` (detail: {title, detail}: something to tell).
 */
export class Bar extends EventTarget {
  #room;
  #publisher;
  /** What is being switched on. @type {Set<string>} */
  #busy = new Set();

  /**
   * @param {HTMLElement} holder
   * @param {import('./room.js').Room} room
   * @param {import('./publisher.js').Publisher} publisher
   */
  constructor(holder, room, publisher) {
    super();
    this.#room = room;
    this.#publisher = publisher;
    this.camera = button('camera', 'camera-off', 'c');
    this.microphone = button('microphone', 'microphone-off', 'm');
    this.screen = button('share-screen', 'screen', 's');
    this.devices = button('devices', 'quality');
    this.sound = button('sound', 'sound');
    this.people = button('people-button', 'people', 'p');
    this.chat = button('chat-button', 'chat', 't');
    this.share = button('share', 'share');
    this.leave = button('leave', 'leave');
    this.people.setAttribute('aria-controls', 'people');
    this.chat.setAttribute('aria-controls', 'chat');
    this.chat.hidden = true;
    label(this.chat, 'Chat', 'Write to the others');
    label(this.devices, 'Devices', 'Choose camera and microphone');
    label(this.sound, 'Sound', 'Turn the sound on');
    label(this.share, 'Share', 'Share a link to this room');
    label(this.leave, 'Leave', 'Leave the room');
    this.sound.hidden = true;
    holder.append(this.microphone, this.camera, this.screen, this.devices, this.sound, this.people, this.chat, this.share, this.leave);
    this.camera.onclick = () => this.#switch('video', () => this.#turn('video'));
    this.microphone.onclick = () => this.#switch('audio', () => this.#turn('audio'));
    this.screen.onclick = () => this.#switch('screen', () => this.#toggleScreen());
    this.devices.onclick = () => this.#choose();
    for (const name of ['people', 'chat', 'share', 'leave', 'sound']) this[name].onclick = () => this.dispatchEvent(new Event(name));
    publisher.addEventListener('change', () => this.render());
    publisher.addEventListener('error', ({ detail }) => {
      if (['forbidden', 'bad-sdp', 'codec-unsupported', 'too-many-streams'].includes(detail.code)) publisher.close();
      this.#say('This can’t be sent', detail.message);
    });
    for (const type of ['joined', 'participants', 'room', 'state']) room.addEventListener(type, () => this.render());
    publisher.addEventListener('forced', ({ detail: { kind, on } }) => {
      const what = kind === 'audio' ? 'microphone' : 'picture';
      this.#say(on ? `A host has muted your ${what}` : `Your ${what} isn’t muted any more`);
    });
    this.render();
  }

  /** Does what a key means. @param {string} key @returns {boolean} whether it means anything */
  key(key) {
    const b = [this.camera, this.microphone, this.screen, this.people, this.chat].find(({ dataset, hidden, disabled }) => dataset.key === key && !hidden && !disabled);
    b?.click();
    return Boolean(b);
  }

  render() {
    const may = this.#room.self.can.has('publish') && this.#room.room.state !== 'closed';
    const source = this.#source;
    for (const [b, kind, name] of [[this.microphone, 'audio', 'microphone'], [this.camera, 'video', 'camera']]) {
      const on = Boolean(source && !source.muted[kind] && source.media.getTracks().some((track) => track.kind === kind));
      const forced = this.#publisher.forced(kind);
      b.hidden = !may;
      b.disabled = this.#busy.has(kind);
      b.classList.toggle('on', on && !forced);
      b.classList.toggle('forced', forced);
      b.setAttribute('aria-pressed', String(on && !forced));
      setIcon(b, on && !forced ? name : `${name}-off`);
      label(b, kind === 'audio' ? 'Mic' : 'Camera', forced ? `A host has muted your ${name}` : `Turn the ${name} ${on ? 'off' : 'on'}`);
    }
    const sharing = this.#sharing;
    this.screen.hidden = !may || (!navigator.mediaDevices?.getDisplayMedia && globalThis.isSecureContext);
    this.screen.disabled = this.#busy.has('screen');
    this.screen.classList.toggle('on', sharing);
    this.screen.setAttribute('aria-pressed', String(sharing));
    label(this.screen, 'Screen', sharing ? 'Stop sharing the screen' : 'Share a screen');
    this.devices.hidden = !source;
    const there = this.#room.participants.size;
    this.people.dataset.count = there || '';
    label(this.people, 'People', there ? `${there} here` : 'Who is here');
    this.share.hidden = this.#room.status.state === 'left';
  }

  get #source() {
    return this.#publisher.sources.find((source) => source.label === 'camera');
  }

  get #sharing() {
    return this.#publisher.sources.some((source) => source.label === 'screen');
  }

  #say(title, detail = '') {
    this.dispatchEvent(new CustomEvent('said', { detail: { title, detail } }));
  }

  /** Does something that takes the browser, or its user, a while. */
  async #switch(what, work) {
    if (this.#busy.has(what)) return;
    this.#busy.add(what);
    this.render();
    try {
      await work();
    } catch (err) {
      const words = captureWords(err, what === 'screen' ? 'screen' : 'camera');
      if (!words.quiet) this.#say(words.title, words.detail);
    } finally {
      this.#busy.delete(what);
      this.render();
    }
  }

  /** Switches the camera's picture or sound. @param {'audio'|'video'} kind */
  async #turn(kind) {
    const source = this.#source;
    if (this.#publisher.forced(kind)) {
      this.#say(kind === 'audio' ? 'A host has muted your microphone' : 'A host has stopped your picture', 'Only a host can lift that.');
      return;
    }
    if (source?.media.getTracks().some((track) => track.kind === kind)) {
      await this.#publisher.mute('camera', kind, !source.muted[kind]);
      if (source.media.getTracks().every((track) => source.muted[track.kind])) this.#publisher.stop('camera'); // nothing is left of it
      return;
    }
    const deviceId = memory.get(chosen[kind]);
    const constraints = deviceId ? { deviceId: { ideal: deviceId } } : true;
    const captured = await captureCamera({ video: kind === 'video' && constraints, audio: kind === 'audio' && constraints });
    const muted = this.#source?.muted ?? {};
    const media = new MediaStream([...(this.#source?.media.getTracks() ?? []), ...captured.getTracks()]);
    this.#publisher.publish(media, { label: 'camera', title: this.#room.self.name || 'Camera', kind: 'camera' });
    for (const before of ['audio', 'video']) if (before !== kind && muted[before]) await this.#publisher.mute('camera', before, true);
  }

  async #toggleScreen() {
    if (this.#sharing) return this.#publisher.stop('screen');
    const media = await captureScreen();
    this.#publisher.publish(media, { label: 'screen', title: `${this.#room.self.name || 'Somebody'}’s screen`, kind: 'screen' });
  }

  /** Asks which devices to use. */
  async #choose() {
    const source = this.#source;
    if (!source) return;
    let all;
    try {
      all = await devices();
    } catch (err) {
      const { title, detail } = captureWords(err);
      this.#say(title, detail);
      return;
    }
    const rows = [['video', 'videoinput', 'Camera'], ['audio', 'audioinput', 'Microphone']].flatMap(([kind, type, name]) => {
      const track = source.media.getTracks().find((t) => t.kind === kind);
      if (!track) return [];
      const select = element('select', { id: `choose-${kind}` }, ...all.filter((device) => device.kind === type).map((device, i) => (
        element('option', { value: device.deviceId }, device.label || `${name} ${i + 1}`)
      )));
      select.value = track.getSettings().deviceId ?? '';
      select.onchange = () => this.#switch(kind, async () => {
        const deviceId = { exact: select.value };
        const captured = await captureCamera({ video: kind === 'video' && { deviceId }, audio: kind === 'audio' && { deviceId } });
        await this.#publisher.replace('camera', captured.getTracks()[0]);
        memory.set(chosen[kind], select.value);
      });
      return [element('label', { for: select.id }, element('span', {}, name), select)];
    });
    const close = element('button', { type: 'button', class: 'button' }, 'Done');
    const dialog = element('dialog', { class: 'sheet', 'aria-labelledby': 'devices-title' }, element('h2', { id: 'devices-title' }, 'Devices'), element('div', { class: 'fields' }, ...rows), close);
    close.onclick = () => dialog.close();
    dialog.onclose = () => dialog.remove();
    document.body.append(dialog);
    dialog.showModal();
  }
}
