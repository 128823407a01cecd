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
	if r, ok := e.renderings.get(p); ok {
		return r, nil
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
	p = p.Clone()
	e.renderings.add(p, r, r.size()+p.Size())
	return r, nil
}

// size returns about how many bytes the rendering takes in memory: the sidecar as
// objects takes about three times its length as JSON.
func (r *rendering) size() int {
	n := 1 << 10
	for _, list := range [][]any{r.initContainers, r.containers, r.volumes} {
		for _, item := range list {
			n += 4 * len(item.(json.RawMessage))
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
