package gateway

import (
	"context"
	"time"

	"gateway/internal/config"
)

// placeholderTimeout is how long a picture for viewers whose source is away may take
// to make.
const placeholderTimeout = 10 * time.Second

// Placeholder implements stream.Launcher. Another process makes it: it decodes what a
// source has encoded.
func (l launcher) Placeholder(ctx context.Context, p *config.Placeholder) ([][][]byte, error) {
	return asking[[][][]byte](ctx, l.machine, askPlaceholder, p)
}
