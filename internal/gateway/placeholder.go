package gateway

import (
	"context"

	"gateway/internal/config"
	"gateway/internal/gst"
)

// Placeholder implements stream.Launcher.
func (l launcher) Placeholder(ctx context.Context, p *config.Placeholder) ([][][]byte, error) {
	return gst.Placeholder(ctx, p)
}
