/**
 * Where the time of frames goes in this browser: told to the gateway, which knows the rest of their way, while it is asked how it goes.
 *
 * @module
 */

/** Of one frame in so much time something is told, in units of RTP timestamps of video, 1/90000 s. */
const sampleEvery = 9_000;
/** How often, in milliseconds. */
const reportEvery = 1_000;
/** Frames of one report, as docs/protocol.md has it. */
const most = 64;

/**
 * What is told of one frame; what this browser doesn't tell is left out. All but `rtp` are milliseconds.
 *
 * @typedef {object} FrameReport
 * @property {number} rtp its RTP timestamp
 * @property {number} [received] when its last packet had come, on the clock of performance.now()
 * @property {number} [jitterBuffer] from then until decoding began; the mean of all frames of the second, which is what browsers tell
 * @property {number} [decode]
 * @property {number} [render] from then until it is expected on the screen
 */

/** Watches the frames of a video element for a viewer, from when the viewer begins to observe until it ends. */
export class Frames {
  #viewer;
  #video;
  #callback = 0;
  #timer = 0;
  #sampled = -1;
  /** @type {{ rtp: number, received?: number, decode?: number, shown: number }[]} */
  #samples = [];
  /** @type {RTCInboundRtpStreamStats?} */
  #last = null;

  /**
   * @param {import('./viewer.js').Viewer} viewer
   * @param {HTMLVideoElement} video
   */
  constructor(viewer, video) {
    this.#viewer = viewer;
    this.#video = video;
    if (!('requestVideoFrameCallback' in video)) return;
    viewer.addEventListener('observe', () => (viewer.observing ? this.#start() : this.stop()));
    if (viewer.observing) this.#start();
  }

  /** Ends it, until the viewer begins to observe again. */
  stop() {
    clearInterval(this.#timer);
    this.#video.cancelVideoFrameCallback?.(this.#callback);
    this.#timer = this.#callback = 0;
    this.#samples = [];
    this.#last = null;
  }

  #start() {
    if (this.#timer) return;
    this.#timer = setInterval(() => this.#report(), reportEvery);
    this.#means();
    this.#await();
  }

  #await() {
    this.#callback = this.#video.requestVideoFrameCallback((_, frame) => {
      this.#await();
      this.#sample(frame);
    });
  }

  /** @param {VideoFrameCallbackMetadata} frame */
  #sample({ rtpTimestamp, receiveTime, processingDuration, expectedDisplayTime }) {
    // by when it was captured: by when it is shown, a frame that comes late after others had better chances
    const sampled = Math.floor(rtpTimestamp / sampleEvery);
    if (rtpTimestamp === undefined || sampled === this.#sampled || this.#samples.length === most) return;
    this.#sampled = sampled;
    const decode = processingDuration === undefined ? undefined : processingDuration * 1000;
    this.#samples.push({ rtp: rtpTimestamp, received: receiveTime, decode, shown: expectedDisplayTime });
  }

  async #report() {
    const samples = this.#samples;
    this.#samples = [];
    const { jitterBuffer, decode } = await this.#means();
    if (!samples.length || !this.#timer) return;
    const frames = samples.map((sample) => {
      const decoding = sample.decode ?? decode;
      // from the last packet to the screen; the browser doesn't tell where the waiting of this one frame was, but how long it was before it
      const rest = sample.received === undefined || decoding === undefined ? undefined : Math.max(0, sample.shown - sample.received - decoding);
      const waiting = rest === undefined || jitterBuffer === undefined ? jitterBuffer : Math.min(jitterBuffer, rest);
      /** @type {FrameReport} */
      const report = { rtp: sample.rtp, received: sample.received, jitterBuffer: waiting, decode: decoding };
      if (rest !== undefined && waiting !== undefined) report.render = rest - waiting;
      for (const key of Object.keys(report)) report[key] = report[key] === undefined ? undefined : Math.round(report[key] * 100) / 100;
      return report;
    });
    this.#viewer.report({ frames });
  }

  /** What a frame waited for decoding and was decoded since the last call, by the connection's statistics, in milliseconds. */
  async #means() {
    const receiver = this.#viewer.peerConnection?.getReceivers().find(({ track }) => track.kind === 'video');
    const report = await receiver?.getStats();
    const now = [...(report?.values() ?? [])].find(({ type }) => type === 'inbound-rtp') ?? null;
    const last = this.#last;
    this.#last = now;
    const mean = (sum, count) => {
      const n = now && last?.id === now.id ? now[count] - last[count] : 0;
      return n > 0 ? Math.max(0, ((now[sum] - last[sum]) / n) * 1000) : undefined;
    };
    return { jitterBuffer: mean('jitterBufferDelay', 'jitterBufferEmittedCount'), decode: mean('totalDecodeTime', 'framesDecoded') };
  }
}
