package controlplane

import (
	"context"
	"sync"
)

// Warnings collects the warnings that a client receives from the API server. It is the
// client's WarningHandlerWithContext.
type Warnings struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w *Warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// Drain returns the warnings since the last call, and clears them.
func (w *Warnings) Drain() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}
