/**
 * Cameras, microphones and screens: which there are, their media, and why they can't be had, in words.
 *
 * @module
 */

/**
 * Why a camera, microphone or screen can't be had, in words.
 *
 * @param {unknown} err what getUserMedia or getDisplayMedia was rejected with
 * @param {'camera'|'screen'} [kind]
 * @returns {{ title: string, detail: string, quiet?: boolean }} quiet: the user did it himself and knows
 */
export function captureWords(err, kind = 'camera') {
  const what = kind === 'screen' ? 'screen' : 'camera or microphone';
  switch (err?.name) {
    case 'InsecureContextError':
      return {
        title: 'This page is not secure',
        detail: `Browsers give a page the ${what} only over HTTPS, or on the machine itself as localhost. Open the gateway by https://, or ask whoever runs it to switch that on.`,
      };
    case 'NotSupportedError':
      return { title: `This browser has no way to share a ${kind}`, detail: 'Try another browser.' };
    case 'NotAllowedError':
      if (kind === 'screen') return { title: 'Nothing was chosen to share', detail: 'The browser, or the system, didn’t allow the screen.', quiet: true };
      return { title: `The ${what} is blocked`, detail: 'Allow it by the sign beside the page’s address, and in the system’s settings for privacy; then try again.' };
    case 'NotFoundError':
    case 'OverconstrainedError':
      return { title: `There is no ${what}`, detail: 'None is connected that fits what was asked for. Connect one, or choose another.' };
    case 'NotReadableError':
    case 'AbortError':
      return { title: `The ${what} can’t be used`, detail: 'It is in use by another program, or it failed. Close that program and try again.' };
  }
  return { title: `The ${what} can’t be used`, detail: String(err?.message || err) };
}

/** @param {string} name @param {string} message */
function refusal(name, message) {
  return new DOMException(message, name);
}

/** The browser's devices, or why it has none for this page. */
function mediaDevices() {
  if (!globalThis.isSecureContext) throw refusal('InsecureContextError', 'the page is not a secure context');
  if (!navigator.mediaDevices?.getUserMedia) throw refusal('NotSupportedError', 'the browser has no mediaDevices');
  return navigator.mediaDevices;
}

/**
 * The cameras, microphones and loudspeakers; without names before the page was given one of them.
 *
 * @returns {Promise<MediaDeviceInfo[]>}
 */
export async function devices() {
  return (await mediaDevices().enumerateDevices()).filter((device) => device.deviceId);
}

/**
 * A camera, a microphone or both.
 *
 * @param {{ video?: boolean|MediaTrackConstraints, audio?: boolean|MediaTrackConstraints }} [wanted]
 * @returns {Promise<MediaStream>} rejected with what captureWords explains
 */
export async function captureCamera({ video = true, audio = true } = {}) {
  const picture = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const sound = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  return mediaDevices().getUserMedia({
    video: video && { ...picture, ...(video === true ? {} : video) },
    audio: audio && { ...sound, ...(audio === true ? {} : audio) },
  });
}

/**
 * A screen, window or tab, with its sound where the browser gives that.
 *
 * @returns {Promise<MediaStream>} rejected with what captureWords explains
 */
export async function captureScreen() {
  const all = mediaDevices();
  if (!all.getDisplayMedia) throw refusal('NotSupportedError', 'the browser has no getDisplayMedia');
  const media = await all.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: true });
  for (const track of media.getVideoTracks()) track.contentHint = 'detail';
  return media;
}
