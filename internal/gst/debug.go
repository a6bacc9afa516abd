package gst

import (
	"context"
	"log/slog"

	"github.com/go-gst/go-gst/gst"
)

// Debug sends GStreamer's debug output to the log. categories is what GST_DEBUG
// would hold, such as "2,v4l2src:5"; empty leaves GStreamer's own default.
func Debug(log *slog.Logger, categories string) {
	Init()
	if categories != "" {
		setThreshold(categories)
	}
	log = log.With("component", "gstreamer")
	gst.SetLogFunction(func(category *gst.DebugCategory, level gst.DebugLevel, file, _ string, line int, _ *gst.LoggedObject, message *gst.DebugMessage) {
		l := slog.LevelInfo // whoever raises GStreamer's own threshold wants to see it
		switch level {
		case gst.LevelError:
			l = slog.LevelError
		case gst.LevelWarning:
			l = slog.LevelWarn
		}
		log.Log(context.Background(), l, message.Get(), "category", category.GetName(), "file", file, "line", line)
	})
}
