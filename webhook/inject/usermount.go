package inject

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// maxUserMounts is the longest userVolumeMount that is parsed, in bytes.
const maxUserMounts = 16 << 10

// volumeMount is a mount in userVolumeMount, without the fields that are not read.
type volumeMount struct {
	Name        string `json:"name,omitempty"`
	MountPath   string `json:"mountPath"`
	ReadOnly    bool   `json:"readOnly,omitempty"`
	SubPath     string `json:"subPath,omitempty"`
	SubPathExpr string `json:"subPathExpr,omitempty"`
}

// problem says why the agent cannot write the certificates of the volume through this
// mount so that the edge reads them in dir, or why the mount is in the way of one that
// can. It returns "" if the mount does no harm.
func (m volumeMount) problem(volume, dir string) string {
	switch {
	case m.Name != volume && path.Clean(m.MountPath) == dir:
		return fmt.Sprintf("mounts volume %s at %q, where volume %s must be mounted; mount it elsewhere, or choose another directory with %s", m.Name, m.MountPath, volume, policy.CertDirKey)
	case m.Name != volume:
		return ""
	case path.Clean(m.MountPath) != dir:
		return fmt.Sprintf("mounts volume %s at %q, but the certificate directory is %q; make them agree", volume, m.MountPath, dir)
	case m.ReadOnly:
		return fmt.Sprintf("mounts volume %s with readOnly, so Istio's agent cannot write certificates there; remove readOnly", volume)
	case m.SubPath != "":
		return fmt.Sprintf("mounts volume %s with subPath %q, so the edge does not see the certificates; mount the whole volume", volume, m.SubPath)
	case m.SubPathExpr != "":
		return fmt.Sprintf("mounts volume %s with subPathExpr %q, so the edge does not see the certificates; mount the whole volume", volume, m.SubPathExpr)
	default:
		return ""
	}
}

// mergeMount adds a mount to sidecar.istio.io/userVolumeMount, which is a JSON list or a
// JSON object by volume name. It is an error if another mount is in the way, or if the
// volume's own mount does not serve.
func mergeMount(text, volume, dir string) (string, error) {
	if len(text) > maxUserMounts {
		return "", fmt.Errorf("it holds %d bytes, and at most %d are read", len(text), maxUserMounts)
	}
	switch first := strings.TrimSpace(text); {
	case first == "":
		return string(encode(map[string]volumeMount{volume: {MountPath: dir}})), nil
	case first[0] == '[':
		return mergeMountList(text, volume, dir)
	default:
		return mergeMountMap(text, volume, dir)
	}
}

func mergeMountList(text, volume, dir string) (string, error) {
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return "", fmt.Errorf("%q is not a JSON list, so Istio cannot read it: %w", text, err)
	}
	found := false
	for _, item := range list {
		m, err := parseMount(item, "", volume, dir)
		if err != nil {
			return "", err
		}
		found = found || m.Name == volume
	}
	if found {
		return text, nil
	}
	return string(encode(append(list, encode(volumeMount{Name: volume, MountPath: dir})))), nil
}

func mergeMountMap(text, volume, dir string) (string, error) {
	var mounts map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &mounts); err != nil {
		return "", fmt.Errorf("%q is neither a JSON object nor a list, so Istio cannot read it: %w", text, err)
	}
	for _, name := range slices.Sorted(maps.Keys(mounts)) {
		if _, err := parseMount(mounts[name], name, volume, dir); err != nil {
			return "", err
		}
	}
	if _, ok := mounts[volume]; ok {
		return text, nil
	}
	if mounts == nil {
		mounts = map[string]json.RawMessage{}
	}
	mounts[volume] = encode(volumeMount{MountPath: dir})
	return string(encode(mounts)), nil
}

// parseMount parses a mount of the annotation and checks it. name is its key in the map
// form. As in Istio's template, a name within the mount wins over the key.
func parseMount(raw json.RawMessage, name, volume, dir string) (volumeMount, error) {
	m := volumeMount{Name: name}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%s is not a volume mount: %w", raw, err)
	}
	if problem := m.problem(volume, dir); problem != "" {
		return m, errors.New(problem)
	}
	return m, nil
}

// checkUserVolume says why the agent cannot write certificates to the volume as
// sidecar.istio.io/userVolume defines it, or returns "". The annotation is a JSON list, or
// a JSON object by volume name. As in Istio's template, a name within the volume wins
// over the key.
func checkUserVolume(text, volume string) string {
	if !strings.Contains(text, volume) {
		return ""
	}
	if len(text) > maxUserMounts {
		return fmt.Sprintf("it holds %d bytes, and at most %d are read", len(text), maxUserMounts)
	}
	type source struct {
		Name     string           `json:"name"`
		EmptyDir *json.RawMessage `json:"emptyDir"` // nil if null
	}
	isUnusable := func(key string, v source) bool { return cmp.Or(v.Name, key) == volume && v.EmptyDir == nil }
	found := false
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		var list []source
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return fmt.Sprintf("%q is not a JSON list of volumes, so Istio cannot read it: %v", text, err)
		}
		found = slices.ContainsFunc(list, func(v source) bool { return isUnusable("", v) })
	} else {
		volumes := map[string]source{}
		if err := json.Unmarshal([]byte(text), &volumes); err != nil {
			return fmt.Sprintf("%q is not a JSON object of volumes, so Istio cannot read it: %v", text, err)
		}
		for key, v := range volumes {
			found = found || isUnusable(key, v)
		}
	}
	if found {
		return fmt.Sprintf("volume %s is no emptyDir, so Istio's agent cannot write certificates there; make it an emptyDir with medium: Memory", volume)
	}
	return ""
}
