// framesSeen() → Promise of browserSeen: what the page's first video has rendered since it began. After strip.js.
globalThis.framesSeen = (() => {
  const frames = []
  let noted, presented
  const offset = Date.now() - performance.now()
  const on = (_, frame) => {
    frames.push({
      At: offset + frame.presentationTime, Complete: offset + (frame.receiveTime ?? frame.presentationTime),
      Timestamp: frame.rtpTimestamp ?? 0, Missed: presented === undefined ? 0 : frame.presentedFrames - presented - 1,
    })
    presented = frame.presentedFrames
    noted.requestVideoFrameCallback(on)
  }
  const look = () => {
    const video = document.body && findVideo()
    if (video && video !== noted) {
      noted = video
      presented = undefined
      video.requestVideoFrameCallback(on)
    }
    setTimeout(look, noted ? 1000 : 20)
  }
  look()
  return async () => {
    const stats = await videoStats()
    return { SSRC: stats?.ssrc ?? 0, Keyframes: stats?.keyFramesDecoded ?? 0, Frames: frames }
  }
})()
