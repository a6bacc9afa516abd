// readStrip(video, {count | ms, screenWidth, patches}) → Promise of a list of frames
//
// Reads the strip of package strip from `count` rendered frames of a video
// element, or from those of the next `ms` milliseconds, inside
// requestVideoFrameCallback. Only the strip's rows are drawn and read back. See
// strip.Frame for the fields of a frame. Rejects when no frame comes for 15 s.
//
// followStrip({screenWidth, patches}) reads all frames that the page renders from now on, whichever video element does; followedStrip()
// → those since it was called last.
//
// findVideo(root) → the first video element, shadow roots included.
// videoStats() → Promise of the inbound-rtp statistics of video of the page's
// newest connection that has them, or null.
// selectedPair() → Promise of {local, remote}, the candidates in use.
// firstFrame: when the page's first frame was rendered, in milliseconds since the
// page was opened; undefined before.
//
// Runs before the page's own scripts, for it notes the connections that they make.
(() => {
  const CELL = 16, CELLS = 34, PATCH_TOP = 48, PATCH = 64, PATCHES = 6, WRAP = 1 << 24

  const connections = []

  // How far performance.now() is from the wall clock: where Date.now() ticks.
  // timeOrigin isn't used, it doesn't follow a clock that was set since.
  const clockOffset = () => {
    let best = Infinity
    for (let i = 0; i < 5; i++) {
      const t = Date.now()
      let tick
      do { tick = Date.now() } while (tick === t)
      best = Math.min(best, performance.now() - tick)
    }
    return -best
  }

  globalThis.findVideo = (root = document) => {
    const video = root.querySelector('video')
    if (video) return video
    for (const element of root.querySelectorAll('*')) {
      const found = element.shadowRoot && findVideo(element.shadowRoot)
      if (found) return found
    }
    return null
  }

  // what a frame that a video shows tells, as a function of requestVideoFrameCallback's metadata; screenWidth may be a list: the first
  // that makes sense counts
  const reader = (video, { screenWidth, patches = false }) => {
    const canvas = document.createElement('canvas')
    const context = canvas.getContext('2d', { willReadFrequently: true, alpha: false })
    const offset = clockOffset()

    const readAs = (screenWidth) => {
      const w = video.videoWidth, h = video.videoHeight, scale = w / screenWidth
      const rows = Math.min(h, Math.ceil((patches ? PATCH_TOP + PATCH : CELL) * scale))
      const columns = Math.min(w, Math.ceil(CELLS * CELL * scale))
      if (canvas.width !== columns || canvas.height !== rows) { canvas.width = columns; canvas.height = rows }
      context.drawImage(video, 0, 0, columns, rows, 0, 0, columns, rows)
      const pixels = context.getImageData(0, 0, columns, rows).data
      const at = (x, y) => 4 * (Math.min(rows - 1, Math.floor(y * scale)) * columns + Math.min(columns - 1, Math.floor(x * scale)))
      const bright = (i) => { const p = at((i + 0.5) * CELL, CELL / 2); return pixels[p] + pixels[p + 1] + pixels[p + 2] > 3 * 127 }
      let n = 0, sum = 0
      for (let i = 2; i < 26; i++) n = 2 * n + bright(i)
      for (let i = 26; i < CELLS; i++) sum = 2 * sum + bright(i)
      const good = bright(0) && !bright(1) && sum === ((n ^ (n >> 8) ^ (n >> 16) ^ 0x5a) & 0xff)
      const colours = []
      for (let i = 0; patches && i < PATCHES; i++) {
        const p = at((i + 0.5) * PATCH, PATCH_TOP + PATCH / 2)
        colours.push([pixels[p], pixels[p + 1], pixels[p + 2]])
      }
      return { n: good ? n : -1, colours }
    }
    const read = () => {
      let got
      for (const width of [screenWidth].flat()) {
        got = readAs(width)
        if (got.n >= 0) break
      }
      return got
    }

    // when the frame was captured, by the sender's clock (abs-capture-time), as Unix time; the source may be at a later frame already
    const capturedAt = (rtp) => {
      for (const connection of connections) {
        for (const receiver of connection.getReceivers()) {
          const source = receiver.track.kind === 'video' && receiver.getSynchronizationSources().find((s) => s.captureTimestamp)
          if (source) return source.captureTimestamp + ((rtp - source.rtpTimestamp) | 0) / 90 - 2208988800000 // from NTP's era
        }
      }
      return null
    }

    return (meta) => {
      const now = performance.now(), captured = capturedAt(meta.rtpTimestamp)
      const { n, colours } = read()
      const wall = now + offset
      const painted = n < 0 ? -1 : wall - (((Math.floor(wall) % WRAP) - n + WRAP + WRAP / 2) % WRAP - WRAP / 2) - wall % 1
      const age = (t) => n < 0 || t === undefined ? -1 : t + offset - painted
      return {
        at: wall, painted, captured: captured === null || n < 0 ? null : captured - painted,
        seen: age(now), shown: age(meta.expectedDisplayTime), received: age(meta.receiveTime),
        decode: meta.processingDuration === undefined ? -1 : meta.processingDuration * 1000,
        presented: meta.presentedFrames, rtp: meta.rtpTimestamp ?? -1, width: video.videoWidth, height: video.videoHeight, patches: colours,
      }
    }
  }

  globalThis.readStrip = (video, { count = Infinity, ms = Infinity, ...options }) => new Promise((resolve, reject) => {
    const read = reader(video, options), begin = performance.now(), frames = []
    let quiet = 0
    const wait = () => { clearTimeout(quiet); quiet = setTimeout(() => reject(new Error(`no frame for 15 s after ${frames.length} frames`)), 15000) }
    const onFrame = (now, meta) => {
      wait()
      frames.push(read(meta))
      if (frames.length >= count || now - begin >= ms) { clearTimeout(quiet); resolve(frames) } else video.requestVideoFrameCallback(onFrame)
    }
    wait()
    video.requestVideoFrameCallback(onFrame)
  })

  let followed = [], following
  globalThis.followStrip = (options) => {
    const follow = () => {
      const video = findVideo()
      if (video && video !== following) {
        following = video
        const read = reader(video, options)
        const onFrame = (_, meta) => {
          if (video !== following) return
          followed.push(read(meta))
          video.requestVideoFrameCallback(onFrame)
        }
        video.requestVideoFrameCallback(onFrame)
      }
    }
    follow()
    setInterval(follow, 50)
  }
  globalThis.followedStrip = () => { const frames = followed; followed = []; return frames }

  const Connection = globalThis.RTCPeerConnection
  globalThis.RTCPeerConnection = class extends Connection {
    constructor(...args) { super(...args); connections.unshift(this) }
  }
  globalThis.videoStats = async () => {
    for (const connection of connections) {
      for (const s of (await connection.getStats()).values()) {
        if (s.type === 'inbound-rtp' && s.kind === 'video') return s
      }
    }
    return null
  }

  globalThis.selectedPair = async () => {
    for (const connection of connections) {
      const stats = await connection.getStats()
      for (const s of stats.values()) {
        const pair = s.type === 'transport' && stats.get(s.selectedCandidatePairId)
        if (pair) return { local: stats.get(pair.localCandidateId), remote: stats.get(pair.remoteCandidateId) }
      }
    }
    return null
  }

  const source = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'srcObject')
  Object.defineProperty(HTMLMediaElement.prototype, 'srcObject', {
    ...source,
    set(stream) {
      source.set.call(this, stream)
      this.requestVideoFrameCallback?.(() => { globalThis.firstFrame ??= performance.now() })
    },
  })
})()
