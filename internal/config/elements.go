package config

import (
	"path"
	"slices"
	"strings"
)

// Elements says which of the elements that use files, the network or programs the
// pipelines may have. All others they may.
type Elements struct {
	Allow []string // names, or patterns of path.Match. Default DefaultElements
}

// DefaultElements are the sources of docs/pipelines.md. They read files and the
// network; nothing that writes, sends or starts programs is among them.
var DefaultElements = []string{
	"filesrc", "multifilesrc", "rtspsrc", "rtmpsrc", "rtmp2src", "souphttpsrc", "srtsrc", "srtclientsrc", "tcpclientsrc", "udpsrc", "uridecodebin",
}

// guarded are the elements that must be allowed, by what they do.
var guarded = []struct{ does, names string }{
	{"reads files", "filesrc multifilesrc splitfilesrc splitmuxsrc splitmuxpartreader imagesequencesrc rsfilesrc dvdreadsrc"},
	{"writes files", "filesink multifilesink splitmuxsink rsfilesink hlssink* hlscmafsink dashsink"},
	{"uses open files and sockets of the process", "fdsrc fdsink socketsrc giostreamsrc giostreamsink ipcpipeline*"},
	{"opens whatever an address names", "giosrc giosink uridecodebin* urisourcebin playbin* gnlurisource nleurisource gesdemux"},
	{"fetches what a playlist names", "hlsdemux* dashdemux* mssdemux*"},
	{"uses the network", "udpsrc udpsink multiudpsink dynudpsink tcpclientsrc tcpclientsink tcpserversrc tcpserversink multifdsink multisocketsink " +
		"rtspsrc rtspclientsink rtmpsrc rtmpsink rtmp2src rtmp2sink srtsrc srtsink srtclientsrc srtclientsink srtserversrc srtserversink ristsrc ristsink " +
		"rtpsrc rtpsink souphttpsrc souphttpclientsink curl*src curl*sink neonhttpsrc reqwesthttpsrc webrtcbin webrtcsrc webrtcsink whip* whep* nicesrc nicesink " +
		"rfbsrc mmssrc dccp*src dccp*sink ndisrc ndisink quic*src quic*sink s3src s3sink aws* kvssink livekit* zmq* mqtt*"},
	{"talks to other programs", "shmsrc shmsink unixfdsrc unixfdsink"},
	{"starts programs", "wpesrc wpevideosrc wpesrc2 cefsrc cefbin webview2src"},
}

// inside are the elements that others are made of: who allows one allows these.
var inside = map[string]string{
	"rtspsrc": "udpsrc udpsink", "rtspclientsink": "udpsrc udpsink", "rtpsrc": "udpsrc udpsink", "rtpsink": "udpsrc udpsink",
	"ristsrc": "udpsrc udpsink", "ristsink": "udpsrc udpsink", "splitmuxsink": "filesink", "splitmuxsrc": "filesrc splitmuxpartreader",
	"hlssink": "multifilesink giostreamsink", "hlssink2": "splitmuxsink filesink giostreamsink", "hlssink3": "splitmuxsink filesink giostreamsink",
	"webrtcbin": "nicesrc nicesink", "webrtcsink": "webrtcbin nicesrc nicesink", "webrtcsrc": "webrtcbin nicesrc nicesink",
	"srtclientsrc": "srtsrc", "srtserversrc": "srtsrc", "srtclientsink": "srtsink", "srtserversink": "srtsink",
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { ok, err := path.Match(p, name); return ok && err == nil })
}

// Guarded is what an element of that name does for which it must be allowed, such as
// "writes files"; "" for the others.
func Guarded(factory string) (does string) {
	for _, g := range guarded {
		if matches(strings.Fields(g.names), factory) {
			return g.does
		}
	}
	return ""
}

// Refused is why pipelines may not have an element: what it does; "" if they may.
func (e Elements) Refused(factory string) (does string) {
	does = Guarded(factory)
	if does == "" || matches(e.Allow, factory) {
		return ""
	}
	return does
}

// Inside tells whether an element may be made by others that are allowed, although
// pipelines may not name it.
func (e Elements) Inside(factory string) bool {
	for outer, made := range inside {
		if matches(e.Allow, outer) && slices.Contains(strings.Fields(made), factory) {
			return true
		}
	}
	return false
}

// refused finds the elements that the texts of a stream may not have.
func (e Elements) refused(s *Stream) (found Errors) {
	texts := map[string]string{"launch": s.Launch, "source": s.Source}
	if s.Audio != nil {
		texts["audio.source"] = s.Audio.Source
	}
	for key, text := range texts {
		nodes, err := ParseLaunch(text)
		if err != nil {
			continue // found already
		}
		for _, n := range nodes {
			does := e.Refused(n.Name)
			if n.Kind != LaunchElement || does == "" {
				continue
			}
			line, column := s.Locate(key, n.Start)
			found = append(found, &Error{
				File: s.Path, Line: line, Column: column, Key: key, Severity: Fault,
				Message: n.Name + " " + does + ", which the gateway's configuration doesn't allow",
				Remedy:  "add " + n.Name + " to elements.allow there, if that is meant",
			})
		}
	}
	return found
}

var elementKeys = []key{
	{path: "elements", kind: ofSection, meaning: "which elements that use files, the network or programs pipelines may have"},
	{path: "elements.allow", kind: ofTexts, def: "[" + strings.Join(DefaultElements, ", ") + "]", example: "[filesrc, rtspsrc]", meaning: "their names, or patterns of them (`srt*`); elements that do none of this need no permission"},
}

// readElements reads the section.
func readElements(m *mapping) Elements {
	if !m.has("allow") {
		return Elements{slices.Clone(DefaultElements)}
	}
	e := Elements{Allow: []string{}}
	for _, n := range m.list("allow") {
		if _, err := path.Match(n.Value, ""); err != nil || n.Value == "" || strings.ContainsAny(n.Value, " !/") {
			m.d.fault(n, "elements.allow", quote(n.Value)+" is no element's name", "write one, or a pattern such as srt*")
			continue
		}
		e.Allow = append(e.Allow, n.Value)
	}
	return e
}
