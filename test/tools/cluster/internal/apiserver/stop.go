package apiserver

import "slices"

// Stop kills every component, in the reverse order of their start, and removes the
// data folder and the additional kubeconfig.
func (p *ControlPlane) Stop() error {
	for _, process := range slices.Backward(p.running()) {
		process.kill()
	}
	return p.Release()
}

func (p *ControlPlane) running() []*process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.processes)
}
