/**
 * Who is looking: a token from a link, a card to sign in, and the gateway's API behind them. What it learns it leaves with the gateway, as
 * a cookie that no script can read.
 *
 * @module
 */
import { element, setText } from './elements.js';

const answerWithin = 10_000;

/** The root of the gateway that this page came from. */
export const root = new URL(import.meta.url.replace(/assets\/[^]*$/, ''));

/** An answer that isn't a success. `code` is the gateway's, or empty; `status` 0: it didn't answer. */
export class Refusal extends Error {
  /** @param {number} status @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * Asks the gateway's API.
 *
 * @param {string} path from its root, such as "api/rooms"
 * @param {{ method?: string, body?: object }} [options]
 * @returns {Promise<any>} what it answers, or null; rejected with a Refusal
 */
export async function api(path, { method = 'GET', body } = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, root), {
      method,
      cache: 'no-store',
      signal: AbortSignal.timeout(answerWithin),
      ...(body ? { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } } : {}),
    });
  } catch (err) {
    throw new Refusal(0, '', navigator.onLine ? `${location.host} doesn’t answer.` : 'This device is offline.', { cause: err });
  }
  const told = /json/.test(answer.headers.get('Content-Type') ?? '') ? await answer.json().catch(() => null) : null;
  if (!answer.ok) throw new Refusal(answer.status, told?.code ?? '', told?.detail || told?.message || told?.title || `The gateway answered ${answer.status}.`);
  return told;
}

/** From the least to the most, and how who has one is called. */
const roles = { viewer: 'a viewer', publisher: 'a guest', host: 'a host', admin: 'an admin' };

/** The role that a token of the gateway says it gives; empty if it doesn't say. Nobody has checked it. @param {string} token */
function roleOf(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'))).role ?? '';
  } catch {
    return ''; // the admin's own is none of these
  }
}

/** Whether who is signed in stays so: a link that gives less takes the place of nobody who hasn't agreed. @param {string} token */
async function stays(token) {
  const order = Object.keys(roles);
  const gives = roleOf(token);
  if (!gives) return false;
  const me = await api('api/session').catch(() => null);
  if (!me || me.open || order.indexOf(me.role) <= order.indexOf(gives)) return false;
  const stay = element('button', { type: 'button', class: 'button', autofocus: '' }, 'Stay signed in');
  const take = element('button', { type: 'button', class: 'quiet' }, 'Use the link');
  const dialog = element('dialog', { class: 'sheet', role: 'alertdialog', 'aria-labelledby': 'less', 'aria-describedby': 'less-detail' },
    element('h2', { id: 'less' }, `You are signed in as ${me.name || roles[me.role]}`),
    element('p', { id: 'less-detail' }, `The link that you opened makes you ${roles[gives] ?? gives} and signs you out of what you have now, in all windows of this browser.`),
    element('div', { class: 'answers' }, take, stay));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue !== 'take');
    };
    stay.onclick = () => dialog.close();
    take.onclick = () => dialog.close('take');
  });
}

/**
 * Signs in by the token of the page's address (#token=…), if there is one, and takes it out of the address and the history. Who is signed
 * in with more than the token gives is asked first.
 *
 * @returns {Promise<Refusal?>} why it wasn't taken, or null
 */
export async function takeToken() {
  addEventListener('hashchange', () => /[#&]token=/.test(location.hash) && location.reload(), { once: true }); // a link into the page that is open
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get('token');
  if (!token) return null;
  fragment.delete('token');
  const rest = fragment.toString();
  history.replaceState(history.state, '', location.pathname + location.search + (rest ? `#${rest}` : ''));
  if (await stays(token)) return null;
  try {
    await api('api/session', { method: 'POST', body: { token } });
    return null;
  } catch (err) {
    return err;
  }
}

/** Signs out. */
export function signOut() {
  return api('api/session', { method: 'DELETE' });
}

/** @type {Promise<void>?} the card that is open */
let open = null;

/**
 * Asks who is looking, until the gateway knows.
 *
 * @param {string} [reason] why it is asked
 * @returns {Promise<void>} resolved when somebody has signed in
 */
export function signIn(reason = '') {
  return (open ??= ask(reason).finally(() => { open = null; }));
}

function ask(reason) {
  const input = (id, label, attributes) => {
    const field = element('input', { id, ...attributes });
    return { field, row: element('label', { for: id }, element('span', {}, label), field) };
  };
  const user = input('sign-in-user', 'User', { autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false' });
  const password = input('sign-in-password', 'Password', { type: 'password', autocomplete: 'current-password' });
  const token = input('sign-in-token', 'Token', { autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', placeholder: 'or a link that has one' });
  const byName = element('div', { class: 'fields' }, user.row, password.row);
  const byToken = element('div', { class: 'fields', hidden: '' }, token.row);
  const problem = element('p', { class: 'problem', role: 'alert' });
  const submit = element('button', { type: 'submit', class: 'button' }, 'Sign in');
  const other = element('button', { type: 'button', class: 'quiet' }, 'Use a token');
  const form = element('form', { novalidate: '' }, byName, byToken, problem, submit, other);
  const dialog = element('dialog', { class: 'sheet sign-in', 'aria-labelledby': 'sign-in-title' },
    element('h2', { id: 'sign-in-title' }, 'Sign in'), element('p', {}, reason || 'This gateway is not open to everybody. Open the link that you were given, or sign in.'), form);
  other.onclick = () => {
    byToken.hidden = !byToken.hidden;
    byName.hidden = !byToken.hidden;
    setText(other, byToken.hidden ? 'Use a token' : 'Use a name and password');
    setText(problem, '');
    (byToken.hidden ? user : token).field.focus();
  };
  dialog.addEventListener('cancel', (event) => event.preventDefault()); // there is nothing behind it
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      const pasted = token.field.value.trim();
      const body = byToken.hidden
        ? { user: user.field.value.trim(), password: password.field.value }
        : { token: /[#&]token=([^&\s]+)/.exec(pasted)?.[1] ?? pasted };
      const missing = Object.entries(body).find(([, value]) => !value)?.[0];
      if (missing) {
        setText(problem, `The ${missing} is missing.`);
        return;
      }
      submit.disabled = true;
      try {
        await api('api/session', { method: 'POST', body });
        dialog.remove();
        resolve();
      } catch (err) {
        setText(problem, err.status === 401 ? 'The gateway doesn’t know these. Nothing was changed.' : err.message);
      } finally {
        submit.disabled = false;
      }
    };
  });
}
