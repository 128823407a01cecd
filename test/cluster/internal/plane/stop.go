package plane

import (
	"errors"
	"slices"
)

// Stop ends every component, the last one first, and removes the data folder
// and the kubeconfigs.
func (p *Plane) Stop() error {
	for _, process := range slices.Backward(p.processes) {
		process.kill()
	}
	var problems []error
	if p.admin != nil && p.options.Kubeconfig != "" {
		problems = append(problems, removeKubeconfig(p.options.Kubeconfig, p.admin))
	}
	problems = append(problems, remove(p.folder), p.lock.Close())
	if p.reaper != nil {
		problems = append(problems, p.reaper.release())
	}
	return errors.Join(problems...)
}
