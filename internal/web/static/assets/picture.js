/**
 * Live media in the player's video element: it begins with its first frame, keeps the last one in sight until the next track has its own,
 * and plays as far as the browser lets it.
 *
 * @module
 */

/** Events: `attached` (other media), `begin` (its first frame was rendered), `change` (whether the browser lets it play). */
export class Picture extends EventTarget {
  #view;
  #connected;
  #playing = false;
  #blocked = false;
  /** When frames were last seen to go on, and since when there is media. */
  #movedAt = 0;
  #mediaAt = 0;
  /** @type {MediaStreamTrack?} the track that is seen */
  #track = null;
  /** @type {MediaStream?} media of which nothing has come yet */
  #awaited = null;

  /**
   * @param {import('./player-view.js').View} view
   * @param {() => boolean} connected whether the connection stands
   */
  constructor(view, connected) {
    super();
    this.#view = view;
    this.#connected = connected;
  }

  /** Whether a frame of the running session was rendered. */
  get playing() {
    return this.#playing;
  }

  /** Whether the browser wants a click before it plays anything. */
  get blocked() {
    return this.#blocked;
  }

  /** For how many milliseconds no frame was seen to come. */
  get still() {
    return performance.now() - this.#movedAt;
  }

  /** For how many milliseconds there has been media. */
  get attachedFor() {
    return performance.now() - this.#mediaAt;
  }

  /** Frames go on, or none are due. */
  moved() {
    this.#movedAt = performance.now();
  }

  /** It is seen again: what wasn't sent meanwhile isn't missing, and a browser may have paused what it didn't show. */
  returned() {
    const { video } = this.#view;
    this.#movedAt = this.#mediaAt = performance.now();
    if (video.paused && video.srcObject) this.play();
  }

  /** Takes everything away. */
  clear() {
    this.#playing = this.#blocked = false;
    this.#awaited = this.#view.video.srcObject = null;
    this.#view.still.hidden = true;
    this.#view.surface.classList.remove('picture');
    this.#track = null;
  }

  /**
   * Plays a session's media; the last frame of the session, or of the track, before stays until the first one of this.
   *
   * @param {MediaStream} media
   * @param {boolean} absent whether nothing is expected soon
   */
  attach(media, absent) {
    this.#awaited = null;
    const { video } = this.#view;
    const [track = null] = media.getVideoTracks();
    if (track !== this.#track) this.#hold(track);
    if (video.srcObject !== media && (absent || document.hidden) && media.getTracks().every((t) => t.muted)) {
      // Nothing comes yet, and a media element that waits for data holds up the page's load event (HTML, "delaying-the-load-event flag").
      for (const t of media.getTracks()) t.addEventListener('unmute', () => this.#awaited === media && this.attach(media, false), { once: true });
      this.#awaited = media;
      return;
    }
    if (video.srcObject !== media) {
      this.#playing = false;
      this.#mediaAt = performance.now();
      video.srcObject = media;
      this.#awaitFrame(media);
    }
    this.play();
    this.dispatchEvent(new Event('attached'));
  }

  /** Plays, without sound where the browser wants it so. */
  async play() {
    const { video } = this.#view;
    try {
      await video.play();
      this.#blocked = false;
    } catch (err) {
      if (err.name !== 'NotAllowedError') return; // new media came while it was about to play
      if (!video.muted) {
        video.muted = true; // without sound a browser allows more
        return this.play();
      }
      this.#blocked = true;
    }
    this.dispatchEvent(new Event('change'));
  }

  /** Keeps the last frame in sight until the track has one. @param {MediaStreamTrack?} track */
  #hold(track) {
    const { video, still, surface } = this.#view;
    this.#track = track;
    if (surface.classList.contains('picture') && still.hidden && video.videoWidth) {
      still.width = video.videoWidth;
      still.height = video.videoHeight;
      still.getContext('2d').drawImage(video, 0, 0);
      still.hidden = false;
    }
    if (!track || !this.#playing) return; // #begin takes it away
    video.requestVideoFrameCallback?.(() => {
      if (track === this.#track) still.hidden = true;
    });
  }

  #awaitFrame(media) {
    const { video } = this.#view;
    const begins = () => video.srcObject === media && !this.#playing;
    const shown = () => {
      if (!begins()) return;
      // Chromium tells of the frame before once more: nothing comes until the connection stands.
      if (this.#connected()) this.#begin();
      else video.requestVideoFrameCallback(shown);
    };
    if (media.getVideoTracks().length && video.requestVideoFrameCallback) video.requestVideoFrameCallback(shown);
    else video.addEventListener('playing', () => begins() && this.#begin(), { once: true });
  }

  #begin() {
    this.#playing = true;
    this.moved();
    this.#view.surface.classList.add('picture');
    this.#view.still.hidden = true;
    this.dispatchEvent(new Event('begin'));
  }
}
