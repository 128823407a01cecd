package inject

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Prints are fingerprints of a container's fields, by field name. They cover
// what Isthmus writes and nothing that the API server or other webhooks add:
// of a list only the first items count, as many as Isthmus wrote.
type Prints map[string]string

// printContainer takes the fingerprints of a container as it was written.
func printContainer(c *corev1.Container) Prints {
	return containerPrints(c, func(_ string, have int) int { return have })
}

// changedField names a field of the container that is no longer as the prints
// say, the empty string when all are.
func (p Prints) changedField(c *corev1.Container) string {
	now := containerPrints(c, func(field string, have int) int {
		n, _, _ := strings.Cut(p[field], ":")
		if wrote, err := strconv.Atoi(n); err == nil {
			return min(wrote, have)
		}
		return have
	})
	for _, field := range printedFields {
		if was, ok := p[field]; ok && was != now[field] {
			return field
		}
	}
	return ""
}

// printedFields is the order in which a change is looked for.
var printedFields = []string{"image", "command", "args", "env", "ports", "resources", "restartPolicy", "startupProbe", "securityContext", "volumeMounts"}

func containerPrints(c *corev1.Container, count func(field string, have int) int) Prints {
	env := make([]string, 0, len(c.Env))
	for _, e := range c.Env[:count("env", len(c.Env))] {
		env = append(env, e.Name, e.Value, envSource(e.ValueFrom))
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
	p := Prints{
		"image":        fingerprint(c.Image),
		"args":         listPrint(len(args), args),
		"env":          listPrint(len(env)/3, env),
		"volumeMounts": listPrint(len(mounts)/3, mounts),
		"ports":        listPrint(len(ports), ports),
		"resources":    fingerprint(resources(c.Resources.Requests) + " " + resources(c.Resources.Limits)),
	}
	if command := c.Command[:count("command", len(c.Command))]; len(command) > 0 {
		p["command"] = listPrint(len(command), command)
	}
	if c.RestartPolicy != nil {
		p["restartPolicy"] = fingerprint(string(*c.RestartPolicy))
	}
	if s := c.StartupProbe; s != nil && s.HTTPGet != nil {
		p["startupProbe"] = fingerprint(fmt.Sprintf("%s %s %d %d", s.HTTPGet.Path, s.HTTPGet.Port.String(), s.PeriodSeconds, s.FailureThreshold))
	}
	if s := c.SecurityContext; s != nil {
		p["securityContext"] = fingerprint([]any{s.RunAsUser, s.RunAsGroup, s.RunAsNonRoot, s.Privileged, s.AllowPrivilegeEscalation, s.ReadOnlyRootFilesystem, s.Capabilities, s.SeccompProfile})
	}
	return p
}

func envSource(s *corev1.EnvVarSource) string {
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

// printVolume covers the source that Isthmus writes; the rest is "other".
func printVolume(v *corev1.Volume) string {
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
			words = append(words, projection(&v.Projected.Sources[i]))
		}
		return fingerprint(strings.Join(words, ", "))
	default:
		return fingerprint("other")
	}
}

func projection(s *corev1.VolumeProjection) string {
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

func listPrint(n int, list any) string { return strconv.Itoa(n) + ":" + fingerprint(list) }

// fingerprint is short: it guards against accidents, not against attackers,
// who own the annotation anyway.
func fingerprint(v any) string {
	sum := sha256.Sum256(encode(v))
	return hex.EncodeToString(sum[:4])
}
