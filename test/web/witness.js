// What a participant notices of the others, for a room's page: witness.mark() begins, witness.seen(name) → witness in four_test.go, leaving
// out what is NAME's own. To run before the page's scripts.
globalThis.witness = (() => {
  const made = { WebSocket: 0, RTCPeerConnection: 0 }
  for (const name of Object.keys(made)) {
    const Old = globalThis[name]
    globalThis[name] = class extends Old {
      constructor(...args) { super(...args); made[name]++ }
    }
  }
  let marked, offers = [], last = '', answers = 0 // last: a browser's remoteDescription is in its own words
  const set = RTCPeerConnection.prototype.setRemoteDescription
  RTCPeerConnection.prototype.setRemoteDescription = function (description) {
    if (description.type === 'offer') offers.push(last = description.sdp)
    else answers++
    return set.call(this, description)
  }

  // m-lines by mid, without what an ICE restart changes, and extensions: one that the browser has left out isn't offered again
  const sections = (sdp) => new Map(sdp.split(/^(?=m=)/m).slice(1).map((section) => [
    /^a=mid:(\S+)/m.exec(section)[1], section.split(/\r?\n/).filter((line) => !/^(c=|a=(candidate|end-of-candidates|ice-|extmap))/.test(line)).join('\n'),
  ]))
  const connections = () => [gatewayRoom.room.peerConnection, gatewayRoom.publisher.peerConnection]

  return {
    mark() {
      const { room, tiles } = gatewayRoom
      offers = []
      answers = 0
      const mine = marked = {
        made: { ...made }, broken: [], user: room.self.userId, connections: connections(), sections: sections(last),
        who: Object.fromEntries([...room.participants.values()].map((p) => [p.name, p.userId])), tiles: new Map(), joins: 0, paused: {},
      }
      room.addEventListener('joined', () => mine.joins++)
      room.addEventListener('rendition', ({ detail: { stream, reason } }) => reason && (mine.paused[stream] = reason))
      for (const pc of mine.connections) {
        pc.addEventListener('connectionstatechange', () => pc.connectionState === 'connected' || mine.broken.push(pc.connectionState))
      }
      for (const { key, video } of tiles.all) {
        // a frame that the script missed was seen: the time is shared among them
        const tile = { video, at: performance.now(), presented: 0, gap: 0 }
        mine.tiles.set(key, tile)
        const on = (_, { presentationTime: at, presentedFrames: presented }) => {
          if (marked !== mine) return
          tile.gap = Math.max(tile.gap, (at - tile.at) / (tile.presented ? presented - tile.presented : 1))
          Object.assign(tile, { at, presented })
          video.requestVideoFrameCallback(on)
        }
        video.requestVideoFrameCallback(on)
      }
    },
    seen(name) {
      const { user, who, joins, broken, made: before } = marked
      const his = (text) => Boolean(who[name]) && text.includes(who[name])
      const gone = (key) => !gatewayRoom.tiles.all.some((tile) => tile.key === key && tile.video === marked.tiles.get(key).video)
      const touched = offers.flatMap((sdp) => {
        const now = sections(sdp)
        return [...marked.sections].filter(([mid, section]) => !his(section) && now.get(mid) !== section).map(([mid, section]) => `${section}\n→\n${now.get(mid)}`)
      })
      const all = [...marked.tiles].filter(([key]) => !his(key))
      return {
        offers: offers.length, answers, touched, broken, joins, user: user === gatewayRoom.room.self.userId,
        same: connections().every((pc, i) => pc === marked.connections[i] && pc.connectionState === 'connected'),
        sockets: made.WebSocket - before.WebSocket, connections: made.RTCPeerConnection - before.RTCPeerConnection,
        paused: marked.paused, gone: all.map(([key]) => key).filter(gone),
        frozen: Object.fromEntries(all.map(([key, { gap, at }]) => [key, Math.round(Math.max(gap, performance.now() - at))])),
      }
    },
  }
})()
