/**
 * How much of a video is seen: its size in device pixels, and whether anybody can see it at all.
 *
 * @module
 */

/** How long a change must last before it is told; what is wanted again is told at once. */
const settleWithin = 250;
/** The protocol's limit. */
const longest = 16_384;

/** Watches where a player's video is shown. */
export class Sight {
  #video;
  #told;
  #size = { width: 0, height: 0 };
  /** Whether any of it is inside of what can be seen of the page, frames around it included; undefined until the browser has said. */
  #inside;
  /** @type {PictureInPictureWindow?} */
  #window = null;
  #audible = false;
  #timer = 0;
  /** What was told last. @type {import('./viewer.js').Sight?} */
  last = null;

  /**
   * @param {HTMLVideoElement} video
   * @param {(sight: import('./viewer.js').Sight) => void} told is called with the first measurement and after changes
   */
  constructor(video, told) {
    this.#video = video;
    this.#told = told;
    this.sizes = new ResizeObserver((entries) => this.#measure(entries.at(-1)));
    this.places = new IntersectionObserver((entries) => {
      this.#inside = entries.at(-1).isIntersecting;
      this.#changed();
    });
    video.addEventListener('enterpictureinpicture', (event) => this.#float(event.pictureInPictureWindow ?? null));
    video.addEventListener('leavepictureinpicture', () => this.#float(null));
    for (const type of ['webkitpresentationmodechanged', 'webkitbeginfullscreen', 'webkitendfullscreen']) video.addEventListener(type, () => this.#changed());
  }

  /** Begins to watch. A page that begins hidden isn't laid out, so no observer speaks: it is told of at once. */
  start() {
    try {
      this.sizes.observe(this.#video, { box: 'device-pixel-content-box' });
    } catch {
      this.sizes.observe(this.#video); // Safari has no such box
    }
    this.places.observe(this.#video);
    document.addEventListener('visibilitychange', this.#changed);
    if (document.hidden) this.#changed();
  }

  /** Stops watching. */
  stop() {
    this.sizes.disconnect();
    this.places.disconnect();
    document.removeEventListener('visibilitychange', this.#changed);
    clearTimeout(this.#timer);
    this.last = null;
    this.#inside = undefined;
  }

  /** Whether it is seen now. */
  get visible() {
    return this.#now.visible;
  }

  /** @param {boolean} audible whether its sound is heard */
  set audible(audible) {
    if (audible === this.#audible) return;
    this.#audible = audible;
    this.#changed();
  }

  /** Whether it has a window of its own, which is seen although its tab is not. */
  get #floats() {
    return Boolean(this.#window) || this.#video.webkitPresentationMode === 'picture-in-picture';
  }

  get #now() {
    const { width, height } = this.#window ? inPixels(this.#window) : this.#video.webkitDisplayingFullscreen ? wholeScreen() : this.#size;
    const visible = this.#floats || (!document.hidden && Boolean(this.#inside) && width * height > 0);
    return { width, height, visible, audible: this.#audible };
  }

  /** @param {ResizeObserverEntry} entry */
  #measure({ devicePixelContentBoxSize, contentRect }) {
    const [box] = devicePixelContentBoxSize ?? [];
    const size = box ? { width: box.inlineSize, height: box.blockSize } : inPixels(contentRect);
    this.#size = { width: Math.min(size.width, longest), height: Math.min(size.height, longest) };
    this.#changed();
  }

  /** @param {PictureInPictureWindow?} pane */
  #float(pane) {
    this.#window?.removeEventListener('resize', this.#changed);
    this.#window = pane;
    pane?.addEventListener('resize', this.#changed);
    this.#changed();
  }

  #changed = () => {
    const last = this.last;
    const now = this.#now;
    if (this.#inside === undefined && !document.hidden && !this.#floats) return; // the browser is about to say
    const wanted = !last || (now.visible && !last.visible) || (now.audible && !last.audible);
    if (wanted) return this.#tell();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tell(), settleWithin);
  };

  #tell() {
    clearTimeout(this.#timer);
    const last = this.last;
    const now = this.#now;
    if (last && Object.keys(now).every((key) => now[key] === last[key])) return;
    this.last = now;
    this.#told(now);
  }
}

/** @param {{ width: number, height: number }} size in CSS pixels */
function inPixels({ width, height }) {
  const scale = (length) => Math.min(Math.round(length * devicePixelRatio), longest);
  return { width: scale(width), height: scale(height) };
}

/** An iPhone shows a video in full screen without telling the page its size: lying, as wide as the screen is long. */
function wholeScreen() {
  return inPixels({ width: Math.max(screen.width, screen.height), height: Math.min(screen.width, screen.height) });
}
