package rig

import (
	"context"
	"encoding/json"
	"fmt"
)

// Page is one tab of a browser.
type Page interface {
	// Navigate loads an address and waits until it is loaded.
	Navigate(ctx context.Context, url string) error
	// Eval runs a JavaScript expression in the page, waits for it when it is a
	// promise, and reads the JSON of its value into out, unless that is nil.
	Eval(ctx context.Context, expression string, out any) error
	// Resize sets the size of the page in CSS pixels.
	Resize(ctx context.Context, width, height int) error
	// Screenshot is a PNG of what the page shows.
	Screenshot(ctx context.Context) ([]byte, error)
	// Close closes the tab.
	Close() error
}

// wrapped makes an expression one whose value is always the JSON text of it.
func wrapped(expression string) string {
	return "(async () => JSON.stringify(await (" + expression + ")) ?? 'null')()"
}

// unwrap reads what a wrapped expression said.
func unwrap(text string, out any) error {
	if out == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		return fmt.Errorf("page said %.200q: %w", text, err)
	}
	return nil
}

// WaitTrue waits until a JavaScript expression is true in the page.
func WaitTrue(ctx context.Context, p Page, expression string) error {
	return Until(ctx, expression, func() (bool, error) {
		var ok bool
		err := p.Eval(ctx, "Boolean("+expression+")", &ok)
		return ok, err
	})
}
