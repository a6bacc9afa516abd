package signal

import (
	"context"
	"net/http"

	"gateway/internal/auth"
)

// everybody is an authority that lets everybody do everything.
type everybody struct{}

func (everybody) Authenticate(context.Context, string) (*auth.Grant, error) { return auth.Open(), nil }
func (everybody) FromRequest(*http.Request) (*auth.Grant, error)            { return auth.Open(), nil }
