package gateway

import (
	"context"

	"gateway/internal/config"
)

// Placeholder implements stream.Launcher.
func (l launcher) Placeholder(ctx context.Context, p *config.Placeholder) ([][][]byte, error) {
	return asking[[][][]byte](ctx, l.machine, askPlaceholder, p)
}
