package inject

import (
	"encoding/json"

	"github.com/isthmus-mesh/isthmus/patches"
)

// rendering is a rendered sidecar in the forms that an edit needs.
type rendering struct {
	sidecar                             *patches.Sidecar
	initContainers, containers, volumes []any
	initFingerprints, fingerprints      map[string]Fingerprints
	volumeFingerprints                  map[string]string
}

// render renders the sidecar, or returns it from the cache. It is an error if the pod's
// overrides contradict each other.
func (e *Engine) render(p patches.Params) (*rendering, error) {
	if r, ok := e.renderings.Get(p); ok {
		return r.(*rendering), nil
	}
	sidecar, err := e.template.Render(p)
	if err != nil {
		return nil, err
	}
	r := &rendering{sidecar: sidecar, volumeFingerprints: map[string]string{}}
	if c := &sidecar.Container; c.Name != "" {
		r.initContainers = []any{encode(c)}
		r.initFingerprints = map[string]Fingerprints{c.Name: fingerprintContainer(c)}
	}
	if c := sidecar.Publisher; c != nil {
		r.containers = []any{encode(c)}
		r.fingerprints = map[string]Fingerprints{c.Name: fingerprintContainer(c)}
	}
	for i := range sidecar.Volumes {
		r.volumes = append(r.volumes, encode(sidecar.Volumes[i]))
		r.volumeFingerprints[sidecar.Volumes[i].Name] = fingerprintVolume(&sidecar.Volumes[i])
	}
	if r.size() <= maxCachedBytes {
		e.renderings.Add(p, r)
	}
	return r, nil
}

// size returns the length in bytes of what is added to the pod.
func (r *rendering) size() int {
	n := 0
	for _, list := range [][]any{r.initContainers, r.containers, r.volumes} {
		for _, item := range list {
			n += len(item.(json.RawMessage))
		}
	}
	return n
}

// encode encodes types of Isthmus and of Kubernetes, which cannot fail. The webhook
// answers a panic with HTTP 500.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
