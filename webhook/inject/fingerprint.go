package inject

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Fingerprints are those of a container's fields, by field name. They cover what Isthmus
// writes and nothing that the API server or other webhooks add: of a list, only the
// first items count, as many as Isthmus wrote.
type Fingerprints map[string]string

// fingerprintContainer returns the fingerprints of a container as Isthmus writes it.
func fingerprintContainer(c *corev1.Container) Fingerprints {
	return fingerprintFields(c, func(_ string, length int) int { return length })
}

// changedField returns a field of the container that differs from its fingerprint, or
// "".
func (f Fingerprints) changedField(c *corev1.Container) string {
	now := fingerprintFields(c, func(field string, length int) int {
		n, _, _ := strings.Cut(f[field], ":")
		if written, err := strconv.Atoi(n); err == nil {
			return min(written, length)
		}
		return length
	})
	for _, field := range fingerprintedFields {
		if was, ok := f[field]; ok && was != now[field] {
			return field
		}
	}
	return ""
}

// fingerprintedFields is the order in which changedField looks at the fields.
var fingerprintedFields = []string{"image", "command", "args", "env", "ports", "resources", "restartPolicy", "startupProbe", "securityContext", "volumeMounts"}

// fingerprintFields fingerprints the fields of a container. count returns how many items
// of a list count.
func fingerprintFields(c *corev1.Container, count func(field string, length int) int) Fingerprints {
	env := make([]string, 0, len(c.Env))
	for _, e := range c.Env[:count("env", len(c.Env))] {
		env = append(env, e.Name, e.Value, envSourceText(e.ValueFrom))
	}
	mounts := make([]string, 0, len(c.VolumeMounts))
	for _, m := range c.VolumeMounts[:count("volumeMounts", len(c.VolumeMounts))] {
		mounts = append(mounts, m.Name, m.MountPath, strconv.FormatBool(m.ReadOnly))
	}
	ports := make([]int32, 0, len(c.Ports))
	for _, p := range c.Ports[:count("ports", len(c.Ports))] {
		ports = append(ports, p.ContainerPort)
	}
	args := c.Args[:count("args", len(c.Args))]
	resources := func(list corev1.ResourceList) string {
		return list.Cpu().String() + "/" + list.Memory().String()
	}
	f := Fingerprints{
		"image":        fingerprint(c.Image),
		"args":         fingerprintList(len(args), args),
		"env":          fingerprintList(len(env)/3, env),
		"volumeMounts": fingerprintList(len(mounts)/3, mounts),
		"ports":        fingerprintList(len(ports), ports),
		"resources":    fingerprint(resources(c.Resources.Requests) + " " + resources(c.Resources.Limits)),
	}
	if command := c.Command[:count("command", len(c.Command))]; len(command) > 0 {
		f["command"] = fingerprintList(len(command), command)
	}
	if c.RestartPolicy != nil {
		f["restartPolicy"] = fingerprint(string(*c.RestartPolicy))
	}
	if s := c.StartupProbe; s != nil && s.HTTPGet != nil {
		f["startupProbe"] = fingerprint(fmt.Sprintf("%s %s %d %d", s.HTTPGet.Path, s.HTTPGet.Port.String(), s.PeriodSeconds, s.FailureThreshold))
	}
	if s := c.SecurityContext; s != nil {
		f["securityContext"] = fingerprint([]any{s.RunAsUser, s.RunAsGroup, s.RunAsNonRoot, s.Privileged, s.AllowPrivilegeEscalation, s.ReadOnlyRootFilesystem, s.Capabilities, s.SeccompProfile})
	}
	return f
}

func envSourceText(s *corev1.EnvVarSource) string {
	switch {
	case s == nil:
		return ""
	case s.FieldRef != nil:
		return s.FieldRef.FieldPath
	case s.ResourceFieldRef != nil:
		return s.ResourceFieldRef.Resource
	default:
		return "other"
	}
}

// fingerprintVolume covers the volume sources that Isthmus writes. All others have the
// same fingerprint.
func fingerprintVolume(v *corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return fingerprint("emptyDir " + string(v.EmptyDir.Medium) + " " + v.EmptyDir.SizeLimit.String())
	case v.ConfigMap != nil:
		return fingerprint("configMap " + v.ConfigMap.Name)
	case v.Secret != nil:
		words := []any{"secret", v.Secret.SecretName}
		for _, i := range v.Secret.Items {
			words = append(words, i.Key, i.Path)
		}
		return fingerprint(words)
	case v.Projected != nil:
		var words []string
		for i := range v.Projected.Sources {
			words = append(words, projectionText(&v.Projected.Sources[i]))
		}
		return fingerprint(strings.Join(words, ", "))
	default:
		return fingerprint("other")
	}
}

func projectionText(s *corev1.VolumeProjection) string {
	switch {
	case s.ServiceAccountToken != nil:
		return "token " + s.ServiceAccountToken.Audience
	case s.ClusterTrustBundle != nil:
		return "bundle " + s.ClusterTrustBundle.Path
	case s.ConfigMap != nil:
		return "configMap " + s.ConfigMap.Name
	case s.DownwardAPI != nil:
		return "downwardAPI"
	default:
		return "other"
	}
}

func fingerprintList(n int, list any) string { return strconv.Itoa(n) + ":" + fingerprint(list) }

// fingerprint is short: it guards against accidents. An attacker could write the
// annotation anyway.
func fingerprint(v any) string {
	sum := sha256.Sum256(encode(v))
	return hex.EncodeToString(sum[:4])
}
