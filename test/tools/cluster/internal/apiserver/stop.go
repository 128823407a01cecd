package apiserver

import "slices"

// Stop ends every component, the last one first, and removes the data folder
// and the kubeconfigs.
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
